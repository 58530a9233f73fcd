"""Optimal Brain Damage with the empirical Fisher diagonal (LeCun et al. 1989, Theis et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstrun.config.option import option
from dstrun.method.after.calibrated import Calibrated, mean_squared_gradients
from dstrun.method.procedure import Setting

if TYPE_CHECKING:
    from torch import Tensor


@option
class Fisher(Calibrated):
    """Prune the connections of lowest 1/2 F w^2, the second-order change of the loss without them at its minimum.

    F is the diagonal of the empirical Fisher matrix, an approximation of that of the Hessian: the mean over images of
    the squared gradient of each image.
    """

    def saliency(self, setting: Setting, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return 1/2 F w^2."""
        fisher = mean_squared_gradients(setting, x, y)
        return [f * w.values().double().square() / 2 for f, w in zip(fisher, setting.layers, strict=True)]
