"""Powerpropagation (Schwarz et al. 2021): weights w = v |v|^(p - 1), trained through v; an option of any method."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dstrun.layer.interface import prunable, sharing


class Power(nn.Module):
    """w = v |v|^(p - 1), entry by entry; its gradient is p |v|^(p - 1) dL/dw, so that large weights grow faster."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, v: Tensor) -> Tensor:
        """Compute the weights."""
        return v * v.abs().pow(self.exponent - 1)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the v of weights: sign(w) |w|^(1 / p)."""
        return w.sign() * w.abs().pow(1 / self.exponent)


def reparametrize(model: nn.Module, exponent: float) -> None:
    """Train every linear and convolution weight through v, starting from the weights there are; 1 changes nothing.

    |w| and |v| rank alike, and so do w dL/dw and v dL/dv, which differ by the factor p: methods may look at either.
    """
    if exponent == 1:
        return
    for _, module in prunable(model):
        made, together = Power(exponent), [module, *sharing(model, module)]
        with torch.no_grad():
            v = made.right_inverse(module.weight)
            for one in together:
                parametrize.register_parametrization(one, "weight", made)
            module.parametrizations["weight"].original.copy_(v)  # type: ignore[index]
