"""How many connections each layer gets: from shapes and sparsity to exact active counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Allocation(Protocol):
    """What an option of the group ``allocation`` can do."""

    @property
    def words(self) -> str:
        """Return the rule in words."""
        ...

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Return each layer's exact number of active connections.

        Args:
            shapes: dense shape of each prunable weight, (out, in) or (out, in / groups, kh, kw), in model order.
            sparsity: zeros / prunable weights, in [0, 1).

        Returns:
            A count per layer, between 1 and the layer's size; their sum is the budget, to the last connection.

        Raises:
            ConfigError: fewer connections than layers are left.
        """
        ...
