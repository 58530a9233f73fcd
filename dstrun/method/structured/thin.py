"""A thin dense network: the baseline with as many weights in fewer channels (Mostafa and Wang 2019)."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, option
from dstrun.layer.interface import prunable
from dstrun.method.interface import Method
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from dstrun.model import Model

GRID = 1000
"""Widths are tried in thousandths: every step of a network of up to 1,000 channels a layer."""


@option
class Thin(Method):
    """Train a dense network of the same depth and smaller ``model.width``, all its weights within the budget.

    The width is the largest, in thousandths, that can be built with at most (1 - s) N prunable weights; channels are
    whole numbers, so that it may have fewer. Everything is counted relative to the network chosen. ``epochs_factor=2``
    trains twice as long, learning rate stretched, as Mostafa and Wang 2019 do; 1 is Small-Dense of Evci et al. 2020.
    """

    epochs_factor: Annotated[float, AtLeast(1)] = 1.0

    why: ClassVar[str] = "which trains a dense network of less width"
    start: ClassVar[str] = "none"
    dense: ClassVar[str] = "which trains a dense network of less width"
    exact: ClassVar[bool] = False

    def allocates(self, scope: str) -> bool:
        """Return no allocation: the width sets the layers' counts."""
        return False

    def network(self, option: Any, build: Callable[[Model], nn.Module], budget: int) -> Model:
        """Find the width.

        Raises:
            ConfigError: the network has no width, or one channel a layer is more than the budget.
        """
        if not hasattr(option, "width"):
            raise ConfigError(f"method=thin makes no sense with model {type(option).__name__}, which has no width")

        def at(thousandths: int) -> tuple[Any, int]:
            """Return the widest network that can be built up to a width, and its weights."""
            for tried in range(thousandths, 0, -1):
                narrow = dataclasses.replace(option, width=tried / GRID)
                try:
                    return narrow, sum(_sizes(build(narrow)))
                except (ValueError, RuntimeError, ZeroDivisionError):  # channels that do not divide into groups, say
                    continue
            return None, 0

        size = sum(_sizes(build(option)))
        if size <= budget:
            return option
        narrower = range(1, int(option.width * GRID) + 1)
        fitting = bisect_right(narrower, budget, key=lambda thousandths: at(thousandths)[1])
        found, _ = at(fitting)
        if found is None:
            least = next(weights for weights in (at(thousandths)[1] for thousandths in narrower) if weights)
            raise ConfigError(
                f"sparsity={1 - budget / size:.6g} makes no sense with method=thin on this network: "
                f"one channel a layer leaves at most {1 - least / size:.4f}"
            )
        return found

    def counts(self, model: nn.Module, budget: int) -> list[int]:
        """Keep every weight of the thin network."""
        return _sizes(model)

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Train ``epochs_factor`` times as long."""
        return round(epochs * self.epochs_factor)


def _sizes(model: nn.Module) -> list[int]:
    return [module.weight.numel() for _, module in prunable(model)]
