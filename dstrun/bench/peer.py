"""Other ways to compute sparse layers: PyTorch's CSR matrices, and packages, compared where they are installed.

A peer builds its layer from a dense weight. A single layer is timed through autograd, so that its two gradients are one
pass; a whole network is trained with the peer's layers in place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dstrun.bench.layout import csr
from dstrun.bench.measure import Passes
from dstrun.layer.geometry import ConvGeometry, Geometry
from dstrun.layer.interface import DenseLayer
from dstrun.layer.topology import Topology
from dstrun.system.trouble import ConfigError

Setup = tuple[Passes, list[Tensor]]


@dataclass(frozen=True)
class Peer:
    """A package, and how it makes a layer: ``layer(geometry, weight, bias)``; ``None`` where it has none of the kind.

    The layer takes and returns tensors as ``nn.Linear`` and ``nn.Conv2d`` do.
    """

    package: str
    layer: Callable[[Geometry, Tensor, nn.Parameter | None], nn.Module | None]

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
        layer = self.layer(geometry, dense(), None) if self.installed() else None
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

    def replace(self, model: nn.Module, layers: Iterable[DenseLayer]) -> list[nn.Module]:
        """Put the peer's layers in place of the masked ones of a network, with the same active weights.

        Raises:
            ConfigError: it is not installed, or has no such layer.
        """
        if not self.installed():
            raise ConfigError(f"{self.package} is not installed")
        made = []
        for layer in layers:
            bias = None if layer.module.bias is None else nn.Parameter(layer.module.bias.detach().clone())
            module = self.layer(layer.geometry, layer.weight.detach().clone(), bias)
            if module is None:
                raise ConfigError(f"it has no layer for {layer.name}, {layer.module}")
            model.set_submodule(layer.name, module)
            made.append(module)
        return made


class Csr(nn.Module):
    """A linear layer whose weight is PyTorch's sparse matrix, (O, I), trained by its autograd; features first."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Map (I, N) to (O, N)."""
        return torch.sparse.mm(self.weight, x)


class CsrLinear(Csr):
    """The same with features last, and a bias."""

    def __init__(self, matrix: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__(matrix)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        y = super().forward(x.flatten(0, -2).t()).t()
        y = y if self.bias is None else y + self.bias
        return y.unflatten(0, x.shape[:-1])


def _torch_csr(geometry: Geometry, weight: Tensor, bias: nn.Parameter | None) -> nn.Module | None:
    """Make a linear layer of PyTorch's CSR matrix."""
    if isinstance(geometry, ConvGeometry):
        return None
    topology = Topology(geometry.shape, weight.flatten().nonzero().flatten().cpu())
    return CsrLinear(csr(topology, weight.flatten()[topology.positions.to(weight.device)]), bias)


def _sparseprop(geometry: Geometry, weight: Tensor, bias: nn.Parameter | None) -> nn.Module | None:
    """Make a layer of SparseProp (Nikdan et al. 2023), which has square convolutions of stride 1 and 2 on the CPU."""
    from sparseprop.modules import SparseConv2d, SparseLinear  # pyright: ignore[reportMissingImports]

    if weight.device.type != "cpu":
        return None
    if not isinstance(geometry, ConvGeometry):
        return _Contiguous(SparseLinear(weight, bias))
    g = geometry
    same = len({*g.shape[2:]}) == len({*g.padding}) == len({*g.stride}) == 1
    if not same or g.groups != 1 or {*g.dilation} != {1} or g.stride[0] > 2:
        return None
    return _Contiguous(SparseConv2d(weight, bias, padding=g.padding[0], stride=g.stride[0]))


class _Contiguous(nn.Sequential):
    """Calls a layer that reads its input's memory without asking for its strides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous())


PEERS = {"sparseprop": Peer("sparseprop", _sparseprop)}
"""Packages by the name of their implementation."""
NETWORKS = {"torch csr": Peer("torch", _torch_csr), **PEERS}
"""What can train whole networks; PyTorch's products of a single layer are in ``kernel``."""
