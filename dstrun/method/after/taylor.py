"""First-order saliency of a trained network (Molchanov et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstrun.config.option import option
from dstrun.method.after.calibrated import Calibrated, mean_gradients
from dstrun.method.procedure import Setting

if TYPE_CHECKING:
    from torch import Tensor


@option
class Taylor(Calibrated):
    """Prune the connections of lowest (g w)^2, the first-order change of the loss without them, squared.

    g = dL/dw is the mean over the images.
    """

    def saliency(self, setting: Setting, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return (g w)^2."""
        gradients = mean_gradients(setting, x, y)
        return [(g * w.values().double()).square() for g, w in zip(gradients, setting.layers, strict=True)]
