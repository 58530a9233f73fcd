"""Trace one sample without computing numbers: which parameters it uses, in which products, and which layers.

A product of the sample with anything else is a *weight product*, whatever the weight is computed from: a parameter, a
view of one, a few of them, a buffer. A product of two tensors that both depend on the sample, or of what layers give,
is one of *attention*.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dstrun.layer.geometry import is_layer
from dstrun.layer.interface import prunable, sharing, stored

aten: Any = torch.ops.aten
OPERANDS: dict[Any, tuple[int, ...]] = {
    aten.mm: (0, 1), aten.bmm: (0, 1), aten._scaled_mm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2),
    aten.convolution: (0, 1), aten._convolution: (0, 1), aten.cudnn_convolution: (0, 1),
    aten.mv: (0, 1), aten.addmv: (1, 2), aten.dot: (0, 1), aten._trilinear: (0, 1, 2),
}  # fmt: skip
"""Which arguments a product multiplies; of others that PyTorch counts, all are looked at."""


@dataclass(frozen=True)
class Product:
    """A weight product of one sample.

    Attributes:
        flops: of the forward pass.
        owners: parameters and buffers the weight is computed from; none where it is a constant.
        executed: of forward and backward; no gradient is computed where none is needed.
    """

    flops: int
    owners: frozenset[str]
    executed: int


@dataclass(frozen=True)
class Call:
    """How a layer is called.

    Attributes:
        first: whether its input needs no gradient.
        sees: shape of its input for one sample.
    """

    first: bool
    sees: tuple[int, ...]


@dataclass
class Survey:
    """What a pass has shown.

    Attributes:
        products: those of weights.
        attention: FLOPs of the others.
        used: parameters that any operation has read.
        reached: parameters that a gradient of the output reaches.
        calls: of linear and convolution layers, the last of each.
        dense: why a layer that could be pruned is not, by path.
        lazy: shapes of the inputs of layers that take their size from these, by path.
        gives: shape of what the network returns; the name of its type where that is no tensor.
    """

    products: list[Product] = field(default_factory=list)
    attention: int = 0
    used: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    calls: dict[str, Call] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)
    lazy: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    gives: tuple[int, ...] | str = ""

    def prepare(self, model: nn.Module) -> None:
        """Make another network of the same option as the one that was looked at: sizes known, layers marked."""
        for name, shapes in self.lazy.items():
            module = model.get_submodule(name)
            assert isinstance(module, LazyModuleMixin)
            inputs = tuple(torch.empty(shape, device="meta") for shape in shapes)
            module._infer_parameters(module, inputs)  # type: ignore[arg-type]
        for name in self.dense:
            model.get_submodule(name).prunable = False  # type: ignore[assignment]


class Unsized(ValueError):
    """A layer never learns its size."""


def survey(model: nn.Module, image: tuple[int, int, int]) -> Survey:
    """Trace one forward pass in evaluation mode, and mark the layers that cannot be pruned.

    Args:
        model: on the meta device; layers without a size get theirs.
        image: (C, H, W) of the input.

    Raises:
        Unsized: a lazy layer is never called.
    """
    found = Survey()
    was_training, fast = model.training, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it hides products
    try:
        model.eval()
        x = torch.empty(1, *image, device="meta")
        with _sized(model, found):
            if any(is_lazy(p) for p in model.parameters()):
                with torch.no_grad():
                    model(x)
        if unsized := [name for name, p in model.named_parameters() if is_lazy(p)]:
            raise Unsized(f"{unsized[0].rpartition('.')[0]} is lazy and never called, so that its size is unknown")
        watch = _Watch(model, x, found)
        with _called(model, watch), watch:
            outputs = model(x)
        found.gives = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        names = {id(p): name for name, p in model.named_parameters()}
        found.reached = {names[id(p)] for p in _leaves(outputs) if id(p) in names}
        cut = {name for name, p in model.named_parameters() if p.requires_grad} - found.reached
        found.products = [replace(p, executed=p.flops) if p.owners & cut else p for p in found.products]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(was_training)
    _mark(model, found)
    return found


class _Watch(TorchDispatchMode):
    """Follows the sample through the operations of a pass, by the storages that hold what depends on it."""

    def __init__(self, model: nn.Module, x: Tensor, found: Survey) -> None:
        super().__init__()
        self.found = found
        self.parameters = {name for name, _ in model.named_parameters()}
        kept = [*model.named_parameters(), *model.named_buffers()]
        self.owners = {_storage(t): frozenset([name]) for name, t in reversed(kept)}
        self.stored = set(self.owners)
        self.sample = {_storage(x)}
        self.alive: list[Any] = []  # a storage that is let go may give its address to another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, getattr(func, "overloadpacket", None)
        counted = packet in flop_registry or packet in OPERANDS
        if not counted and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        storages = {_storage(t) for t in inputs}
        names = frozenset[str]().union(*(self.owners.get(s, frozenset()) for s in storages))
        self.found.used |= names & self.parameters
        if counted:
            self._count(packet, args, kwargs, out, inputs)
        fed = bool(storages & self.sample)
        for result in (t for t in tree_leaves(out) if isinstance(t, Tensor) and _storage(t) not in self.stored):
            if fed:
                self.follow(result)
            else:
                self.alive.append(result.untyped_storage())
                self.owners[_storage(result)] = self.owners.get(_storage(result), frozenset()) | names
        return out

    def follow(self, activation: Tensor) -> None:
        """Mark a tensor as depending on the sample."""
        self.alive.append(activation.untyped_storage())
        self.sample.add(_storage(activation))

    def _count(self, packet: Any, args: Any, kwargs: Any, out: Any, inputs: list[Tensor]) -> None:
        flops = _flops(packet, args, kwargs, out)
        factors = [args[i] for i in OPERANDS[packet]] if packet in OPERANDS else inputs
        weights = [t for t in factors if _storage(t) not in self.sample]
        if packet not in OPERANDS or not weights:
            self.found.attention += flops
            return
        owners = frozenset[str]().union(*(self.owners.get(_storage(t), frozenset()) for t in weights))
        passes = 1 + sum(t.requires_grad for t in factors)
        self.found.products.append(Product(flops, owners, flops * passes))


def _flops(packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Count a product: PyTorch's formula, or that of the products it has none for."""
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=out)
    if packet is aten._trilinear:
        return 2 * prod(args[1].shape) * args[0].shape[:-1].numel()
    return 2 * args[OPERANDS[packet][0]].numel()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def _sized(model: nn.Module, found: Survey) -> Iterator[None]:
    """Note what lazy modules see while they learn their size."""
    handles = []
    for name, module in model.named_modules():
        if any(is_lazy(p) for p in module.parameters(recurse=False)):

            def note(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                found.lazy.setdefault(name, [tuple(x.shape) for x in inputs])

            handles.append(module.register_forward_pre_hook(note))
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def _called(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Note how linear and convolution layers are called; what they give is an activation, also of a learned query."""
    handles = []
    for name, module in model.named_modules():
        if is_layer(module):

            def note(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                watch.found.calls[name] = Call(not inputs[0].requires_grad, tuple(inputs[0].shape[1:]))
                watch.follow(output)

            handles.append(module.register_forward_hook(note))
    yield
    for handle in handles:
        handle.remove()


def _leaves(outputs: Any) -> Iterator[Tensor]:
    """Iterate over the parameters that the gradient of a network's output reaches."""
    nodes = [t.grad_fn for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        fresh = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= fresh
        nodes += fresh


def _mark(model: nn.Module, found: Survey) -> None:
    """Mark as not prunable what is not called or what no gradient reaches, as no method could score or train it."""
    names = {id(p): name for name, p in model.named_parameters()}
    paths = {id(module): name for name, module in model.named_modules()}
    while True:
        before = len(found.dense)
        for name, module in prunable(model):
            together = [name, *(paths[id(m)] for m in sharing(model, module))]
            if name not in found.calls:
                held = names[id(stored(module))] in found.used
                found.dense[name] = "its weight is used without calling it" if held else "never used"
                module.prunable = False  # type: ignore[assignment]
            elif names[id(stored(module))] not in found.reached:
                for one in together:
                    found.dense[one] = "no gradient reaches it"
                    model.get_submodule(one).prunable = False  # type: ignore[assignment]
        if len(found.dense) == before:
            return
