"""Dense storage kept at zero outside the topology: simulates sparsity, saves neither memory nor time.

The weight is a dense parameter whose inactive entries are exactly zero. Gradients are masked before the optimizer
sees them, so momentum and weight decay leave inactive entries at zero; the forward pass multiplies nothing.

Shape letters: A active connections, M candidates, N connections of the dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dstrun.backend.search import Proposes, Search, best_by_gradient
from dstrun.layer.geometry import Layer, geometry, is_layer
from dstrun.layer.growth import GrowthContext, GrowthRequest, Proposal
from dstrun.layer.initial import Initial, home, initial
from dstrun.layer.interface import SparseLayer, carried, prunable, sharing, single
from dstrun.layer.topology import Topology
from dstrun.system.ranks import ALONE, Passes, Ranks
from dstrun.system.transfer import sent


class MaskedLayer(Proposes):
    """One ``Linear``, ``Conv1d`` or ``Conv2d`` with a topology (see ``dstrun.layer.interface.SparseLayer``).

    Args:
        name: the module's path in the network.
        module: left in place; its weight is overwritten.
        topology: which connections are active.

    Attributes:
        at: (A,) int64, on the weight's device: where they are in its memory.
        idle: bool, of the weight's shape: which connections are inactive.
        ever: bool, of the weight's shape: which have been active at any time.
    """

    backend = "masked"

    def __init__(self, name: str, module: Layer, topology: Topology) -> None:
        self.name = name
        self.module = module
        self.geometry = geometry(module)
        self.optimizer: torch.optim.Optimizer | None = None
        self.ranks: Ranks = ALONE
        self.passes = Passes()
        if not _is_laid_out(self.weight):
            self.weight.data = self.weight.detach().contiguous()
        self.ever = torch.zeros_like(self.weight, dtype=torch.bool, requires_grad=False)
        self._set_topology(topology)

    @property
    def weight(self) -> Tensor:
        """The dense parameter, (O, ...), zero outside the topology; what the weights are computed from, if they are."""
        computed = getattr(self.module, "parametrizations", {})
        return computed["weight"].original if "weight" in computed else self.module.weight

    @property
    def topology(self) -> Topology:
        """The active connections."""
        return self._topology

    @property
    def count(self) -> int:
        """A, active connections."""
        return self._topology.count

    @property
    def mask(self) -> Tensor:
        """Which connections are active: bool, of the weight's shape."""
        return ~self.idle

    def _set_topology(self, topology: Topology) -> None:
        self._topology, self.at = topology, self._places(topology.positions)
        self.idle = torch.ones_like(self.weight, dtype=torch.bool, requires_grad=False)
        _flat(self.idle).index_fill_(0, self.at, False)
        _flat(self.ever).index_fill_(0, self.at, True)

    def _places(self, positions: Tensor) -> Tensor:
        """Return where positions are in the memory of the weight, whose channels may be innermost; on its device."""
        if not self.weight.is_contiguous():
            _, channels, *kernel = self.weight.shape
            inputs, taps = positions % (channels * math.prod(kernel)), math.prod(kernel)
            positions = positions - inputs + inputs % taps * channels + inputs // taps
        return sent(positions, self.weight.device)

    def values(self) -> Tensor:
        """Return the weights of the active connections: (A,)."""
        return single(_flat(self.weight.detach())[self.at])

    def set_values(self, values: Tensor) -> None:
        """Set the weights of the active connections, (A,), and zero all others."""
        with torch.no_grad():
            _flat(self.weight.zero_())[self.at] = values.to(self.weight)

    def grad(self) -> Tensor:
        """Return the gradient on the active connections: (A,)."""
        return single(_flat(self._grad())[self.at])

    def add_gradient(self, change: Tensor) -> None:
        """Add to the gradient on the active connections: (A,)."""
        _flat(self._grad())[self.at] += change.to(self.weight.dtype)

    def confine_gradient(self) -> None:
        """Zero the gradient of inactive connections."""
        if self.weight.grad is not None:
            self.weight.grad.masked_fill_(self.idle, 0)  # a product would keep what is not finite

    def request_growth(self, request: GrowthRequest) -> None:
        """Arm the next backward: candidates are drawn inside it, then scored by the weight's gradient."""
        search = Search(request, self.passes)
        seen: list[GrowthContext] = []

        def on_forward(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return _Look.apply(output, inputs[0].detach(), on_delta) if torch.is_grad_enabled() else None

        def on_delta(x: Tensor, delta: Tensor) -> None:
            context = GrowthContext.of(self, request, x, delta.to(x.dtype))
            if search.draw(context) and self.passes.last:
                seen.append(context)

        def on_gradient(_weight: Tensor) -> None:
            if seen:  # the gradient is that of the whole batch now
                forward_hook.remove()
                gradient_hook.remove()
                self._found = self._score(request, seen.pop(), search.candidates)

        forward_hook = self.module.register_forward_hook(on_forward)
        gradient_hook = self.weight.register_post_accumulate_grad_hook(on_gradient)

    def _score(self, request: GrowthRequest, context: GrowthContext, positions: Tensor | None) -> Proposal:
        gradient = self.ranks.average(self._grad())
        if positions is None:
            chosen = single(gradient.reshape(-1))
        else:
            at = self._places(positions)
            chosen = single(_flat(gradient)[at])
            positions = at if self.weight.is_contiguous() else sent(positions, gradient.device)
        return best_by_gradient(request.criterion, chosen, positions, context)

    def rewire(self, prune: Tensor, grow: Tensor) -> None:
        """Replace connections in topology, weights and optimizer state; grown weights and their state start at 0."""
        topology = self.topology.rewired(prune.cpu(), grow.cpu())
        state = carried(self, grow.numel() > 0)
        self._topology, self.at = topology, self._places(topology.positions)
        prune, grow = self._places(prune.cpu()), self._places(grow.cpu())
        _flat(self.idle).index_fill_(0, prune, True)
        _flat(self.idle).index_fill_(0, grow, False)
        _flat(self.ever).index_fill_(0, grow, True)
        changed = torch.cat([prune, grow])
        for tensor in [self.weight.detach(), *state.values()]:
            _flat(tensor).index_fill_(0, changed, 0)

    def index(self) -> list[Tensor]:
        """List positions and masks."""
        return [self.at, self.idle, self.ever]

    def explored(self) -> Tensor:
        """Return the share of all connections that have been active at any time: float64 ()."""
        return self.ever.count_nonzero().double() / self.ever.numel()  # a sum would copy it to 64 bits

    def state(self) -> dict[str, Tensor]:
        """Return the positions and the mask of connections ever active."""
        return {"positions": self.topology.positions, "ever": self.ever}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the topology of a checkpoint; the weight is loaded with the network."""
        self._set_topology(Topology(self.topology.shape, state["positions"].cpu()))
        self.ever.copy_(state["ever"])

    def dense_grad(self) -> Tensor:
        """Return the gradient of all weights, inactive ones too, until it is confined: (N,)."""
        return single(self._grad().reshape(-1))

    def _grad(self) -> Tensor:
        if self.weight.grad is None:
            raise RuntimeError(f"{self.name}: no gradient yet")
        return self.weight.grad


class _Look(torch.autograd.Function):
    """A layer's output as it is; its gradient is shown to a function with the layer's input.

    Autograd keeps the input as it keeps the layer's own, once for both, and in the same form.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, show: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.mark_dirty(output)  # so that it is no view, and what follows may work in place
        ctx.save_for_backward(x)
        ctx.show = show
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        ctx.show(*ctx.saved_tensors, delta)
        return delta, None, None


def _is_laid_out(weight: Tensor) -> bool:
    """Return whether a weight lies in memory without gaps, in one of the two orders that ``_places`` knows."""
    innermost = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return weight.is_contiguous() or innermost


def _flat(tensor: Tensor) -> Tensor:
    """View a tensor without gaps in the order of its memory: (N,)."""
    return tensor.as_strided((tensor.numel(),), (1,))


def sparsify(
    model: nn.Module, counts: Sequence[int], seed: int = 0, device: torch.device | None = None
) -> list[SparseLayer]:
    """Assign every linear and convolution layer a random topology and weights scaled by the actual fan-in.

    Args:
        model: changed in place; its other parameters stay.
        counts: active connections of each prunable layer, in the order of ``model.named_modules()``.
        seed: of topologies and weights; each layer has its own stream.
        device: where the layers go; by default where they are, or the CPU for layers on ``meta``.

    Raises:
        ValueError: there are more or fewer counts than prunable layers.
    """
    return [
        replace(model, name, module, initial(tuple(module.weight.shape), count, seed, index), device)
        for index, ((name, module), count) in enumerate(zip(prunable(model), counts, strict=True))
    ]


def replace(
    model: nn.Module, name: str, module: Layer, start: Initial, device: torch.device | None = None
) -> MaskedLayer:
    """Convert one layer of a network in place, with the initial topology, weights and bias.

    What shares its weight goes on doing so.
    """
    device = device or home(module.weight)
    together = [module, *sharing(model, module)]
    for one in together:
        if any(parameter.is_meta for parameter in one.parameters(recurse=False)):
            one.to_empty(device=device)
        one.to(device)
        one.weight = module.weight
        if is_layer(one) and one.bias is not None:
            one.bias.data.copy_(start.bias)
    layer = MaskedLayer(name, module, start.topology)
    layer.set_values(start.values)
    return layer


def wrap(model: nn.Module, device: torch.device) -> list[SparseLayer]:
    """Convert every linear and convolution layer in place, with all connections active, on a device."""
    model.to(device)
    return [
        MaskedLayer(name, module, Topology(tuple(module.weight.shape), torch.arange(module.weight.numel())))
        for name, module in prunable(model)
    ]
