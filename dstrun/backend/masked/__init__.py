"""Simulates sparsity: dense storage, kept at zero outside the topology."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.layer.backend import Backend
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dstrun.layer.geometry import Layer
    from dstrun.layer.initial import Initial
    from dstrun.layer.interface import SparseLayer


class Masked(Backend):
    """Traits of ``backend=masked``."""

    dense: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = False
    repeats: ClassVar[bool] = True
    remark: ClassVar[str] = "simulated on dense storage"

    def replace(
        self, model: nn.Module, name: str, module: Layer, start: Initial, device: torch.device | None = None
    ) -> SparseLayer:
        """Convert a layer, which stays in place (``layer.replace``)."""
        from dstrun.backend.masked.layer import replace

        return replace(model, name, module, start, device)

    def wrap(self, model: nn.Module, device: torch.device) -> list[SparseLayer]:
        """Convert every layer as it is."""
        from dstrun.backend.masked.layer import wrap

        return wrap(model, device)

    def laid_out(self, x: Tensor, module: Layer) -> Tensor:
        """Lay images out channels last, as dense convolutions like them."""
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


BACKEND = Masked()
