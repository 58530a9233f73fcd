"""AutoSparse: learned thresholds with gradient annealing (Kundu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from dstrun.allocation.budget import budget
from dstrun.config.option import Within, option
from dstrun.method.soft.annealing import Annealed
from dstrun.method.soft.learned import Learned


@option
class AutoSparse(Learned, Annealed):
    """Train STR's thresholds s, with alpha times the gradient for pruned weights.

    So a weight pruned too early can recover; alpha is annealed (``Annealed``), and alpha = 0 is STR. While alpha is
    above 0, a share ``backward_sparsity`` of each layer's weights gets no gradient: those of smallest |w|, but no
    active one.
    """

    backward_sparsity: Annotated[float, Within(0, 1, high_open=True)] = 0.0

    start: ClassVar[str] = "all"

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        idle = {"alpha_end", "backward_sparsity"} if self.alpha == 0 else set()
        return super().unread(parts) | idle

    def alpha_at(self, step: int, total: int) -> float:
        """Return alpha at a step, counted from 1, of ``total``."""
        return Annealed.alpha_at(self, step, total)

    def reached(self, size: int) -> int | None:
        """Count the weights of a layer of ``size`` that have gradients while alpha is above 0; ``None``: all."""
        return budget(size, self.backward_sparsity) if self.backward_sparsity else None
