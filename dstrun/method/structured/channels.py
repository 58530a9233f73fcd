"""Channels that can be removed: the layer that computes them, and the only layer that reads them.

A channel is an output of a linear or convolution layer, and what elementwise functions, normalization, pooling and
flattening make of it. Removing it prunes every connection into it and every connection of its reader out of it; what
the network computes is then that of one in which it was never built.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dstrun.layer.interface import SparseLayer, prunable, stored
from dstrun.method.update import LayerUpdate
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import few

KINDS = nn.Linear | nn.Conv1d | nn.Conv2d
ELEMENTWISE = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Tanh, nn.Sigmoid,
    F.dropout, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, torch.relu, torch.tanh, torch.sigmoid,
    "relu", "tanh", "sigmoid",
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
)  # fmt: skip
FLATTEN = (nn.Flatten, torch.flatten, "flatten")
MEAN = (torch.mean, "mean")


@dataclass(frozen=True)
class Pair:
    """Channels that one layer makes and only one other reads.

    Attributes:
        producer: path of the layer whose outputs they are.
        norms: paths of the batch normalizations in between.
        consumer: path of the layer that reads them; flattened, each channel is several of its inputs.
        channels: how many.
    """

    producer: str
    norms: tuple[str, ...]
    consumer: str
    channels: int


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Stop at prunable layers, also where their weights are computed from others."""
        return isinstance(m, KINDS) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.Graph:
    """Record what a network calls, in order.

    Raises:
        Exception: of any kind, where its course depends on what it computes.
    """
    return _Tracer().trace(model)


class _Pass(fx.Interpreter):
    """Runs a network call by call, and shows some of its layers' inputs before these are read."""

    def __init__(self, model: nn.Module, before: Mapping[str, Callable[[Tensor], None]]) -> None:
        super().__init__(model, graph=trace(model))
        self.before = before

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Show what a layer is about to read."""
        if target in self.before:
            self.before[target](args[0] if args else next(iter(kwargs.values())))
        return super().call_module(target, args, kwargs)


def run(model: nn.Module, x: Tensor, before: Mapping[str, Callable[[Tensor], None]]) -> None:
    """Pass samples forward; what ``before`` has for a layer's path is called with what that layer is about to read.

    It may change the layer.
    """
    _Pass(model, before).run(x)


def pairs(model: nn.Module) -> tuple[list[Pair], dict[str, str]]:
    """Find the layers whose channels can be removed; and of the others, why theirs cannot.

    Args:
        model: may lie on the meta device.

    Returns:
        Pairs in the order in which consumers are called; and a reason by the path of every other prunable layer.
    """
    layers = dict(prunable(model))
    try:
        graph = trace(model)
    except Exception:
        return [], dict.fromkeys(layers, "the network's forward pass cannot be traced")
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    uses = Counter(id(stored(m)) for m in model.modules() if isinstance(m, KINDS))
    once = {name for name, m in layers.items() if calls[name] == 1 and uses[id(stored(m))] == 1}
    found: list[Pair] = []
    whole = {name: "it is not called exactly once with its own weight" for name in layers if name not in once}
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.op == "call_module" and node.target in once:
            one = _follow(node, modules, once)
            if isinstance(one, Pair):
                found.append(one)
            else:
                whole[node.target] = one
    order = {name: place for place, name in enumerate(n.target for n in graph.nodes if n.op == "call_module")}
    return sorted(found, key=lambda pair: order[pair.consumer]), whole


def _follow(node: fx.Node, modules: Mapping[str, nn.Module], once: set[str]) -> Pair | str:
    """Walk from a layer to the only one that reads it, or say what is in the way."""
    name, producer = str(node.target), modules[str(node.target)]
    if isinstance(producer, nn.Conv1d):
        return "its channels are those of a 1-D convolution"
    if getattr(producer, "groups", 1) != 1:
        return "its channels come in groups"
    channels = cast(Tensor, producer.weight).shape[0]
    flat, norms = isinstance(producer, nn.Linear), []
    while True:
        if len(node.users) != 1:
            return "several layers read its channels"
        (node,) = node.users
        if node.op == "output":
            return "its channels are the network's output"
        called: Any = modules[str(node.target)] if node.op == "call_module" else node.target
        if isinstance(called, nn.Linear | nn.Conv2d):
            inputs = called.in_features if isinstance(called, nn.Linear) else called.in_channels
            apart = isinstance(called, nn.Linear) == flat and getattr(called, "groups", 1) == 1
            named = isinstance(getattr(called, "padding", 0), str)
            if node.target not in once or not apart or named or inputs % channels:
                return f"{node.target} reads its channels together or in groups"
            return Pair(name, tuple(norms), str(node.target), channels)
        if _is(called, NORMS):
            norms.append(str(node.target))
        elif _is(called, FLATTEN) and not flat and _start(called, node) == 1:
            flat = True
        elif _is(called, MEAN) and not flat and _over_space(node):
            flat = not node.kwargs.get("keepdim", False) and len(node.args) < 3
        elif not (_is(called, ELEMENTWISE) or (_is(called, POOLS) and not flat)):
            word = type(called).__name__ if isinstance(called, nn.Module) else getattr(called, "__name__", called)
            return f"{word} reads its channels"


def _is(called: Any, kinds: Sequence[Any]) -> bool:
    """Return whether a module is of these kinds, or a function or method one of them."""
    if isinstance(called, nn.Module):
        return type(called) in kinds
    return any(called is kind or (isinstance(kind, str) and called == kind) for kind in kinds)


def _start(called: Any, node: fx.Node) -> Any:
    if isinstance(called, nn.Flatten):
        return called.start_dim
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)


def _over_space(node: fx.Node) -> bool:
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
    return isinstance(dims, Sequence) and set(dims) in ({2, 3}, {-1, -2})


def remaining(model: nn.Module, found: Sequence[Pair], kept: Mapping[str, int]) -> list[int]:
    """Count the weights of each prunable layer when each pair keeps ``kept[producer]`` channels."""
    made, read = {p.producer: p for p in found}, {p.consumer: p for p in found}
    counts = []
    for name, module in prunable(model):
        count = module.weight.numel()
        for pair in (made.get(name), read.get(name)):
            count = count if pair is None else count // pair.channels * kept[pair.producer]
        counts.append(count)
    return counts


def uniform(model: nn.Module, found: Sequence[Pair], budget: int, method: str) -> dict[str, int]:
    """Keep the same share of the channels of every pair: the largest whose weights are within the budget.

    Returns:
        Channels by producer: the share of them rounded down, at least one.

    Raises:
        ConfigError: one channel of each is still more than the budget.
    """

    def kept(share: Fraction) -> dict[str, int]:
        return {pair.producer: max(1, int(share * pair.channels)) for pair in found}

    def weights(share: Fraction) -> int:
        return sum(remaining(model, found, kept(share)))

    steps = {Fraction(kept, channels) for channels in {pair.channels for pair in found} for kept in range(channels + 1)}
    shares = sorted(steps | {Fraction(1)})
    fitting = bisect_right(shares, budget, key=weights)
    if not fitting:
        size = weights(Fraction(1))
        raise ConfigError(
            f"sparsity={1 - budget / size:.6g} makes no sense with method={method} on this network: "
            f"whole channels reach {1 - weights(Fraction(0)) / size:.4f} at most"
        )
    return kept(shares[fitting - 1])


class Channels:
    """The channels of a network in training.

    Args:
        model: the network.
        layers: of which every connection is active.
    """

    def __init__(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        self.model, self.layers = model, list(layers)
        self.pairs, self.whole = pairs(model)
        self.layer = {layer.name: layer for layer in layers}
        self.modules = dict(model.named_modules())

    def remove(self, pair: Pair, channels: Tensor) -> None:
        """Prune every connection into these channels and out of them, and zero biases and norms on the way.

        These get no gradient any more and have no momentum, so that they stay at zero.
        """
        producer, consumer = self.layer[pair.producer], self.layer[pair.consumer]
        for layer, place in ((producer, operator.floordiv), (consumer, operator.mod)):
            positions = layer.topology.positions
            fan_in = layer.topology.size // layer.topology.shape[0]
            channel = place(positions, fan_in)
            if layer is consumer:
                channel = channel // (fan_in // pair.channels)
            layer.rewire(positions[torch.isin(channel, channels.cpu())], positions[:0])
        for name in (pair.producer, *pair.norms):
            for parameter in self._per_channel(name):
                state = producer.optimizer.state.get(parameter, {}) if producer.optimizer is not None else {}
                for tensor in (parameter.detach(), *state.values()):
                    if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                        tensor.index_fill_(0, channels, 0)

    def _per_channel(self, name: str) -> list[nn.Parameter]:
        """List a layer's bias, or a norm's weight and bias."""
        module = self.modules[name]
        named = ("bias",) if name in self.layer else ("weight", "bias")
        return [p for p in (getattr(module, key) for key in named) if p is not None]

    def changes(self, before: Sequence[int]) -> list[LayerUpdate]:
        """Report what became of the layers' counts."""
        return [LayerUpdate.of(layer, count - layer.count) for layer, count in zip(self.layers, before, strict=True)]

    def summary(self) -> str:
        """Return which layers keep their channels, for the log."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.whole.items():
            reasons.setdefault(reason, []).append(name)
        kept = [f"{few(names)} ({reason})" for reason, names in reasons.items()]
        return f"channels of {len(self.pairs)} layers can be removed; the others are kept: {', '.join(kept)}"
