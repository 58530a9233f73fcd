"""Losses of one's own in place of the cross-entropy: an option class with ``build(classes, device)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """What an option of the group ``loss`` can do."""

    def build(self, classes: int, device: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of logits (B, classes) float32 and labels (B,) int64: the mean loss over samples, ().

        Raises:
            ConfigError: it gives something else.
        """
        ...
