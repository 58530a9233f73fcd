"""Other packages that compute sparse layers, compared where they are installed.

A peer builds its layer from a dense weight and is timed through autograd, so that its two gradients are one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dstrun.bench.measure import Passes
from dstrun.layer.geometry import ConvGeometry, Geometry

Setup = tuple[Passes, list[Tensor]]


@dataclass(frozen=True)
class Peer:
    """A package, and how its layer is made: ``layer(geometry, weight)``, or ``None`` where it has none of the kind."""

    package: str
    layer: Callable[[Geometry, Tensor], nn.Module | None]

    def installed(self) -> bool:
        """Return whether the package can be imported."""
        return find_spec(self.package) is not None

    def setup(self, geometry: Geometry, dense: Callable[[], Tensor], x: Tensor, delta: Tensor) -> Setup | None:
        """Return the passes and what is stored of the weight, or ``None``: not installed, or no such layer.

        Args:
            geometry: of the layer.
            dense: gives its dense weight.
            x: input.
            delta: gradient of the output.
        """
        layer = self.layer(geometry, dense()) if self.installed() else None
        if layer is None:
            return None
        source = x.detach().requires_grad_()
        outputs: list[Tensor] = []

        def forward() -> Tensor:
            with torch.enable_grad():
                outputs[:] = [layer(source)]
            return outputs[0]

        def backward() -> None:
            source.grad = None
            layer.zero_grad(set_to_none=True)
            outputs.pop().backward(delta)

        return {"forward": forward, "both gradients": backward}, [*layer.parameters(), *layer.buffers()]


def _sparseprop(geometry: Geometry, weight: Tensor) -> nn.Module | None:
    """Make a layer of SparseProp (Nikdan et al. 2023)."""
    from sparseprop.modules import SparseConv2d, SparseLinear  # pyright: ignore[reportMissingImports]

    if isinstance(geometry, ConvGeometry):
        return SparseConv2d(weight, padding=geometry.padding[0], stride=geometry.stride[0])
    return SparseLinear(weight)


PEERS = {"sparseprop": Peer("sparseprop", _sparseprop)}
