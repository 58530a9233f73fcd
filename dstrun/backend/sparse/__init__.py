"""Always sparse: stores the active connections and computes with them alone (``docs/sparse.md``)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dstrun.backend.sparse.kernel import NO_TRITON
from dstrun.layer.backend import Backend
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dstrun.layer.geometry import Layer
    from dstrun.layer.initial import Initial
    from dstrun.layer.interface import SparseLayer


class AlwaysSparse(Backend):
    """Traits of ``backend=sparse``."""

    def replace(
        self, model: nn.Module, name: str, module: Layer, start: Initial, device: torch.device | None = None
    ) -> SparseLayer:
        """Replace a dense layer by a sparse one (``layer.replace``)."""
        from dstrun.backend.sparse.layer import replace

        return replace(model, name, module, start, device)

    def finish(self, model: nn.Module) -> None:
        """Keep memory batch-innermost between layers."""
        from dstrun.backend.sparse.layer import keep_layout

        keep_layout(model)

    def lacks(self, name: str, module: Layer, device: torch.device) -> str:
        """Return why a GPU has no kernel for a layer."""
        if device.type == "cpu":
            return ""
        if isinstance(module, torch.nn.Linear):
            return NO_TRITON if device.type == "cuda" and find_spec("triton") is None else ""
        return (
            f"backend=sparse has no GPU kernel for convolutions, and the network has a convolution ({name}): "
            "set backend=masked, which is faster there, or device=cpu"
        )

    def laid_out(self, x: Tensor, module: Layer) -> Tensor:
        """Lay a batch out batch-innermost; a linear layer's with its features outermost."""
        inner = (-1, 0) if isinstance(module, torch.nn.Linear) else (0, -1)
        return x.movedim(*inner).contiguous().movedim(*reversed(inner))

    def announce(self, say: Callable[[str], None]) -> None:
        """Announce that kernels will be compiled, where none are kept."""
        from dstrun.backend.sparse.kernel.fast import announce

        announce(say)


BACKEND = AlwaysSparse()
