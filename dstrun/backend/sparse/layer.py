"""Always sparse: layers that store and compute the active connections alone; nothing of the dense size ever exists.

A layer holds its values, their positions (``Pattern``), and no more; its gradient and the optimizer's state have the
values' shape. All are plain strided tensors. Outputs lie batch-innermost in memory, whatever their logical shape:
elementwise operations keep that, and the next sparse layer reads it without a copy.

Shape letters: A active connections, M candidates, O outputs, I inputs of one output, N samples, P items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from dstrun.backend.dropout import Dropout
from dstrun.backend.search import Proposes, Search, best_by_gradient, best_of_all, dense_gradient
from dstrun.backend.sparse.affine import features, items
from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.explored import Explored
from dstrun.backend.sparse.heads import Unflatten
from dstrun.backend.sparse.kernel import Kernel
from dstrun.backend.sparse.kernel.layout import batch_outermost
from dstrun.backend.sparse.normalization import BatchNorm2d, LayerNorm
from dstrun.backend.sparse.pattern import Pattern, rows_of
from dstrun.backend.sparse.pooling import MaxPool2d
from dstrun.backend.sparse.product import Product
from dstrun.layer.geometry import Conv1dGeometry, ConvGeometry, Geometry, Layer, LinearGeometry, geometry
from dstrun.layer.growth import GrowthContext, GrowthRequest
from dstrun.layer.initial import Initial, home, initial
from dstrun.layer.interface import SparseLayer, carry, prunable, sharing, single
from dstrun.layer.topology import Topology, ordered
from dstrun.system.ranks import ALONE, Passes, Ranks
from dstrun.system.transfer import sent


class Sparse(Proposes, nn.Module):
    """What ``Linear``, ``Conv1d`` and ``Conv2d`` share; implements ``dstrun.layer.interface.SparseLayer``.

    Args:
        geometry: how connections relate to inputs and outputs.
        topology: which connections are active.
        values: (A,) their weights; float32, bfloat16 or float16, or float64 with the reference kernels.
        bias: (O,), or ``None``.

    Attributes:
        weight: (A,) the values, in the order of positions.
        kernel: ``fast``, ``reference``, or ``None`` for the fastest that there is.
    """

    backend: str = "sparse"
    dense: type[nn.Module]
    bias: nn.Parameter | None

    def __init__(self, geometry: Geometry, topology: Topology, values: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        bias_shape = None if bias is None else tuple(bias.shape)
        if topology.shape != geometry.shape or values.shape != topology.positions.shape:
            raise ValueError(f"{tuple(values.shape)} values, {topology.count} of {topology.shape}: {geometry.shape}")
        if bias_shape not in (None, geometry.shape[:1]):
            raise ValueError(f"{bias_shape} biases for a weight {geometry.shape}")
        self.name, self.geometry = "", geometry
        self.kernel: str | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.ranks: Ranks = ALONE
        self.passes = Passes()
        self.weight = nn.Parameter(values)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))
        self.pattern = Pattern(geometry, topology, values.device)
        self.ever = Explored(topology, self.pattern.per_output)
        self._search: Search | None = None

    @property
    def topology(self) -> Topology:
        """The active connections, put together from what is stored: 8 bytes each while they are looked at."""
        return self.pattern.topology()

    @property
    def count(self) -> int:
        """A, active connections."""
        return self.pattern.count

    @property
    def convolution(self) -> ConvGeometry:
        """The geometry for kernels: a linear layer is a 1x1 convolution over one position, a 1-D one has one row."""
        return self.geometry if isinstance(self.geometry, ConvGeometry) else self.geometry.as_convolution()

    def values(self) -> Tensor:
        """Return the weights of the active connections: (A,)."""
        return single(self.weight.detach())

    def set_values(self, values: Tensor) -> None:
        """Set the weights of the active connections: (A,)."""
        with torch.no_grad():
            self.weight.copy_(values)

    def grad(self) -> Tensor:
        """Return the gradient on the active connections: (A,)."""
        return single(self._grad())

    def add_gradient(self, change: Tensor) -> None:
        """Add to the gradient on the active connections: (A,)."""
        self._grad().add_(change)

    def confine_gradient(self) -> None:
        """Leave the gradient as it is: there is none outside the topology."""

    def request_growth(self, request: GrowthRequest) -> None:
        """Arm the next backward: candidates are drawn and scored inside it, in place of the weight's gradient."""
        self._search = Search(request, self.passes)

    def rewire(self, prune: Tensor, grow: Tensor) -> None:
        """Replace connections in topology, weights and optimizer state; grown weights and their state start at 0."""
        prune, grow = ordered(prune.cpu()), ordered(grow.cpu())
        moves = self.pattern.rewire(prune, grow)
        carry(self, grow.numel() > 0, moves.moved)
        before, self.weight.data = self.count, moves.moved(self.weight.data)
        self.weight.grad = None
        self.pattern.become(moves)
        self.ever.add(grow)
        if self.count != before:
            self.ranks.reshaped()

    def explored(self) -> float:
        """Estimate the share of all connections that have been active at any time, from a sample of them."""
        return self.ever.share()

    def index(self) -> list[Tensor]:
        """List the tensors that say which connections are active."""
        return [*self.pattern.tensors(), self.ever.positions]

    def state(self) -> dict[str, Tensor]:
        """Return the sample of connections ever active; the topology is in ``state_dict``."""
        return self.ever.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the sample of connections ever active; the topology is loaded with the network."""
        self.ever.load_state(state)

    @classmethod
    def from_dense(cls, module: Layer, topology: Topology | None = None) -> Self:
        """Make a sparse layer from a dense layer's weights at the positions of a topology (``None``: its nonzeros)."""
        if not isinstance(module, cls.dense):
            raise TypeError(f"cannot make a sparse {cls.__name__} from {module}")
        weight = module.weight.detach()
        if topology is None:
            topology = Topology(tuple(weight.shape), weight.flatten().nonzero().flatten().cpu())
        bias = None if module.bias is None else module.bias.detach().clone()
        return cls(geometry(module), topology, weight.flatten()[topology.positions], bias)

    def to_dense(self) -> Layer:
        """Return the dense layer that computes the same."""
        module = self._dense()
        topology = self.topology
        flat = self.weight.new_zeros(topology.size)
        flat[topology.positions] = self.weight.detach()
        module.weight = nn.Parameter(flat.view(self.geometry.shape))
        if self.bias is not None:
            module.bias = nn.Parameter(self.bias.detach().clone())
        return module

    def extra_repr(self) -> str:
        """Show shape and density."""
        density = self.count / math.prod(self.geometry.shape)
        return f"{self.geometry.shape}, active={self.count}, density={density:.3%}, bias={self.bias is not None}"

    def _grad(self) -> Tensor:
        if self.weight.grad is None:
            raise RuntimeError(f"{self.name}: no gradient yet")
        return self.weight.grad

    def _dense(self) -> Layer:
        raise NotImplementedError

    def _apply_kernels(self, x: Tensor, deferred: Deferred | None = None) -> Tensor:
        """Map (C, H, W, N), or what is made of it, to (O, Ho, Wo, N); an input that does not fit is refused."""
        pattern, convolution = self.pattern, self.convolution
        if x.shape[0] != pattern.channels or min(x.shape[1:3]) < 1 or min(convolution.output_size(x.shape[1:3])) < 1:
            raise ValueError(f"{self.name}: no input of {tuple(x.shape[:3])} for a weight {self.geometry.shape}")
        if self.weight.numel() != pattern.count:
            raise RuntimeError(f"{self.name}: {self.weight.numel()} weights for {pattern.count} active connections")
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return Product.apply(x if deferred is None else deferred, self.weight, self.bias, self)

    def look(self, x: Tensor, delta: Tensor, kernel: Kernel) -> None:
        """Search for candidates in an armed backward pass, given input and output gradient as kernels have them."""
        search = self._search
        assert search is not None
        criterion = search.request.criterion
        context = GrowthContext.of(self, search.request, self._seen(x), self._seen(delta))
        if not search.draw(context):
            return
        if self.passes.last:
            self._search = None
        positions = search.candidates
        if positions is None and self.passes.count == 1:
            self._found = best_of_all(criterion, context, self._dense_gradient(context, x, delta))
            return
        if positions is None:
            gradient = search.add(dense_gradient(context))
        else:
            positions = sent(ordered(positions), x.device)  # a criterion may name them in any order
            rows, inputs = rows_of(positions, self.geometry.shape[0], self.pattern.per_output)
            gradient = search.add(kernel.weight_gradient(self.convolution, rows, inputs, x, delta))
        if self.passes.last:
            self._found = best_by_gradient(criterion, self.ranks.average(gradient), positions, context)

    def _seen(self, tensor: Tensor) -> Tensor:
        """View what kernels see in the logical shape."""
        raise NotImplementedError

    def _dense_gradient(self, context: GrowthContext, x: Tensor, delta: Tensor) -> Callable[[int, int], Tensor]:
        """Return a function that gives the dense gradient of the outputs from one to another.

        A convolution's input is put into PyTorch's order once, and the output gradient of these outputs alone.
        """
        if isinstance(self.geometry, LinearGeometry):
            return context.weight_gradient
        x = batch_outermost(x)

        def gradient(first: int, last: int) -> Tensor:
            part = batch_outermost(delta[first:last])
            return context.ranks.average(self.convolution.gradient_of(x, part, first))

        return gradient

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        loaded, inputs = state_dict.get(f"{prefix}weight"), state_dict.get(f"{prefix}pattern.inputs")
        if loaded is not None and inputs is not None and loaded.shape == inputs.shape != self.weight.shape:
            self.weight.data = self.weight.data.new_empty(loaded.shape)
            self.weight.grad = None
        super()._load_from_state_dict(state_dict, prefix, *args)


class Linear(Sparse):
    """y = x W^T + b with W (O, I) sparse; any leading dimensions."""

    dense = nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        deferred = x.source() if isinstance(x, Deferred) else None
        x = x if deferred is None else deferred.x
        return items(self._apply_kernels(features(x), deferred), x.shape[:-1])

    def _dense(self) -> nn.Linear:
        out, features = self.geometry.shape
        return nn.Linear(features, out, self.bias is not None, device="meta")

    def _seen(self, tensor: Tensor) -> Tensor:
        return tensor[:, 0, 0].t()


class Conv1d(Sparse):
    """A 1-D convolution whose weight (O, C / groups, k) is sparse; zero padding."""

    dense = nn.Conv1d

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, O, Lo), or without N."""
        if x.dim() == 2:
            return self.forward(x[None])[0]
        return self._apply_kernels(x.permute(1, 2, 0)[:, None])[:, 0].permute(2, 0, 1)

    def _dense(self) -> nn.Conv1d:
        g = self.geometry
        assert isinstance(g, Conv1dGeometry)
        out, channels, taps = g.shape
        steps = (g.stride, g.padding, g.dilation, g.groups)
        return nn.Conv1d(channels * g.groups, out, taps, *steps, self.bias is not None, device="meta")

    def _seen(self, tensor: Tensor) -> Tensor:
        return tensor[:, 0].permute(2, 0, 1)


class Conv2d(Sparse):
    """A 2-D convolution whose weight (O, C / groups, kh, kw) is sparse; zero padding."""

    dense = nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, Ho, Wo), or without N."""
        if x.dim() == 3:
            return self.forward(x[None])[0]
        deferred = x.source() if isinstance(x, Deferred) else None
        x = x if deferred is None else deferred.x
        return self._apply_kernels(x.permute(1, 2, 3, 0), deferred).permute(3, 0, 1, 2)

    def _dense(self) -> nn.Conv2d:
        g = self.geometry
        assert isinstance(g, ConvGeometry)
        out, channels, height, width = g.shape
        steps = (g.stride, g.padding, g.dilation, g.groups)
        return nn.Conv2d(channels * g.groups, out, (height, width), *steps, self.bias is not None, device="meta")

    def _seen(self, tensor: Tensor) -> Tensor:
        return tensor.permute(3, 0, 1, 2)


def sparsify(
    model: nn.Module, counts: Sequence[int], seed: int = 0, device: torch.device | None = None
) -> list[SparseLayer]:
    """Replace every linear and convolution layer by an always-sparse one with a random topology.

    Weights are drawn anew, scaled by the actual fan-in (``dstrun.layer.initial``). A layer on the ``meta`` device
    becomes a sparse one on the CPU, so that networks whose dense weights fit nowhere can be built.

    Args:
        model: changed in place; its other parameters stay.
        counts: active connections of each prunable layer, in the order of ``model.named_modules()``.
        seed: of topologies and weights; each layer has its own stream.
        device: where the layers go; by default where they are, or the CPU for layers on ``meta``.

    Raises:
        ValueError: there are more or fewer counts than prunable layers.
    """
    layers: list[SparseLayer] = [
        replace(model, name, module, initial(tuple(module.weight.shape), count, seed, index), device)
        for index, ((name, module), count) in enumerate(zip(prunable(model), counts, strict=True))
    ]
    keep_layout(model)
    return layers


def keep_layout(model: nn.Module) -> None:
    """Run modules between sparse layers on batch-innermost memory; they keep their parameters, buffers and state."""
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        nn.BatchNorm2d: BatchNorm2d,
        nn.LayerNorm: LayerNorm,
        nn.MaxPool2d: MaxPool2d,
        nn.Dropout: Dropout,
        nn.Unflatten: Unflatten,
    }
    for module in model.modules():
        module.__class__ = kinds.get(type(module), type(module))


def replace(model: nn.Module, name: str, module: Layer, start: Initial, device: torch.device | None = None) -> Sparse:
    """Replace a dense layer by a sparse one, with the initial topology, weights and bias.

    Raises:
        ValueError: the layer is the whole network, and so stands in none.
        TypeError: it computes something of its own, or another module computes with its weight.
    """
    if model is module:
        raise ValueError("the network is itself a layer: put it into an nn.Sequential, or use from_dense")
    kind = {nn.Linear: Linear, nn.Conv1d: Conv1d, nn.Conv2d: Conv2d}.get(type(module))
    if kind is None:
        raise TypeError(
            f"{name} is a {type(module).__name__}: only plain Linear, Conv1d and Conv2d layers can be replaced"
        )
    if sharing(model, module):
        raise TypeError(f"{name} shares its weight with another layer: tied weights need backend=masked")
    device, dtype = device or home(module.weight), module.weight.dtype
    bias = None if module.bias is None else start.bias.to(device, dtype)
    layer = kind(geometry(module), start.topology, start.values.to(device, dtype), bias)
    layer.name = name
    for parent in list(model.modules()):
        for leaf, child in list(parent._modules.items()):
            if child is module:
                setattr(parent, leaf, layer)
    return layer
