"""What a method can read and change of a sparse layer, whatever its storage.

Shape letters: A active connections of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

from dstrun.layer.geometry import Geometry, Layer, has_geometry
from dstrun.layer.growth import GrowthRequest, Proposal
from dstrun.layer.topology import Topology
from dstrun.system.lazy import torch
from dstrun.system.ranks import Passes, Ranks
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


class SparseLayer(Protocol):
    """One layer with a topology. Every backend implements it; every method works on every one."""

    name: str
    backend: str
    """Which backend stores it."""
    geometry: Geometry
    optimizer: torch.optim.Optimizer | None
    """Whose state ``rewire`` carries over; set once the optimizer exists."""
    ranks: Ranks
    """The processes that share every batch; set where there are several."""
    passes: Passes
    """The passes that a batch takes; set where there are several."""

    @property
    def topology(self) -> Topology:
        """The active connections; on the CPU."""
        ...

    @property
    def count(self) -> int:
        """A, the number of active connections."""
        ...

    @property
    def weight(self) -> Tensor:
        """The parameter that holds the weights, as the backend stores them."""
        ...

    def values(self) -> Tensor:
        """Return the weights of the active connections: (A,), in the order of ``topology.positions``."""
        ...

    def set_values(self, values: Tensor) -> None:
        """Set the weights of the active connections: (A,)."""
        ...

    def grad(self) -> Tensor:
        """Return the gradient on the active connections: (A,)."""
        ...

    def add_gradient(self, change: Tensor) -> None:
        """Add to the gradient on the active connections: (A,)."""
        ...

    def confine_gradient(self) -> None:
        """Drop what the backward left outside the topology, before the optimizer sees it."""
        ...

    def request_growth(self, request: GrowthRequest) -> None:
        """Arm the next backward: candidates are drawn inside it, from that pass's input and output gradient.

        Where a batch takes several passes (``passes``), all of them are armed, and what is found is of the batch.
        """
        ...

    def proposal(self) -> Proposal:
        """Return what the armed backward found, and disarm.

        Raises:
            RuntimeError: no armed backward has run.
        """
        ...

    def rewire(self, prune: Tensor, grow: Tensor) -> None:
        """Replace connections at once in topology, weights and optimizer state; grown weights and their state are 0.

        Args:
            prune: active positions, on any device.
            grow: inactive positions, on any device.

        Raises:
            ConfigError: the optimizer keeps state that this would leave stale; nothing has changed.
        """
        ...

    def explored(self) -> float | Tensor:
        """Return the share of all connections that have been active at any time (R_s: Liu et al. 2021).

        A number, or float64 () on the layer's device, so that those of all layers are read together.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs besides the parameters."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the topology of a checkpoint; parameters are loaded apart."""
        ...

    def index(self) -> list[Tensor]:
        """List the tensors that say which connections are active."""
        ...


class DenseLayer(SparseLayer, Protocol):
    """A layer on dense storage, for methods that cannot do without: see ``Method.dense``.

    Its ``weight`` is the dense parameter, (O, ...); with ``parametrize`` the module computes its weights from it.
    """

    module: Layer
    ever: Tensor
    """Which connections have been active at any time: bool, of the weight's shape."""

    def dense_grad(self) -> Tensor:
        """Return the gradient of all weights, inactive ones too, until it is confined: (N,)."""
        ...


def carried(layer: SparseLayer, grows: bool) -> dict[str, Tensor]:
    """Return the optimizer's state of a layer's weight that its connections carry with them: what has its shape.

    What has another shape is stale once connections are replaced, and a number, as a count of steps, once they grow. An
    optimizer that sees to that itself has a method ``before_growth(weight)``, which is called before connections grow
    and may bring in state of the weight's shape.

    Args:
        layer: about to be rewired.
        grows: whether connections are about to grow in it.

    Raises:
        ConfigError: other state would be stale.
    """
    optimizer, weight = layer.optimizer, layer.weight
    state: dict[str, Any] = {} if optimizer is None else optimizer.state.get(weight, {})
    prepare = getattr(optimizer, "before_growth", None)
    if prepare is not None and grows:
        prepare(weight)
    for key, value in state.items() if prepare is None else ():
        if _is_stale(value, grows, weight.shape):
            when = "grow" if grows else "are pruned"
            raise ConfigError(
                f"{type(optimizer).__name__} keeps {key!r} for {layer.name}, which is stale once connections {when}: "
                "choose optimizer=sgd, adam or adamw, or give it a method before_growth(weight)"
            )
    return {key: value for key, value in state.items() if getattr(value, "shape", None) == weight.shape}


def carry(layer: SparseLayer, grows: bool, move: Callable[[Tensor], Tensor]) -> None:
    """Replace what ``carried`` finds by what ``move`` makes of it; an optimizer that packs state shows it as numbers.

    Args:
        layer: about to be rewired.
        grows: whether connections are about to grow in it.
        move: makes a tensor of the new weight's shape of one of the old one's.
    """
    optimizer = layer.optimizer
    with getattr(optimizer, "unpacked", nullcontext)(layer.weight):
        for key, value in carried(layer, grows).items():
            assert optimizer is not None
            optimizer.state[layer.weight][key] = move(value)


def single(tensor: Tensor) -> Tensor:
    """Return a tensor in at least single precision, the same one where it is: what methods compute with."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


def _is_stale(value: Any, grows: bool, shape: tuple[int, ...] | None = None) -> bool:
    """Return whether a part of an optimizer's state is no longer true of a weight when its connections change."""
    if isinstance(value, torch.Tensor):
        return value.shape != shape and (value.numel() > 1 or (value.numel() == 1 and grows))
    if isinstance(value, dict | list | tuple):
        return any(_is_stale(part, grows) for part in (value.values() if isinstance(value, dict) else value))
    return grows and isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def skeleton() -> Iterator[None]:
    """Build networks whose linear, convolution and attention layers have no weights yet: on the ``meta`` device.

    A backend's ``sparsify`` gives them weights. So a network can be built whose dense weights fit nowhere.
    """

    def bare(init: Any) -> Any:
        @wraps(init)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            with torch.device("meta"):
                init(*args, **kwargs)

        return wrapped

    nn = torch.nn
    kinds: list[Any] = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention]
    kinds += [nn.LazyLinear, nn.LazyConv1d, nn.LazyConv2d]
    originals = [kind.__init__ for kind in kinds]
    for kind in kinds:
        kind.__init__ = bare(kind.__init__)
    try:
        yield
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.__init__ = original


def prunable(model: nn.Module) -> list[tuple[str, Layer]]:
    """List the layers whose weights are prunable, in the order of ``named_modules``.

    These are the linear and the 1-D and 2-D convolution layers of zero padding, but those that are frozen, compute
    their weight from several parameters, or have an attribute ``prunable`` that is false: a network of your own may
    say so, and ``account.survey`` does of layers that are never called. Of layers that share one weight the first
    stands for all.
    """
    layers: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        if _is_prunable(module):
            layers.setdefault(id(stored(module)), (name, module))
    return list(layers.values())


def _is_prunable(module: nn.Module) -> bool:
    weight = stored(module)
    if not getattr(module, "prunable", True) or weight is None or not weight.requires_grad:
        return False
    return not torch.nn.parameter.is_lazy(weight) and has_geometry(module)


def sharing(model: nn.Module, module: Layer) -> list[nn.Module]:
    """List the other modules of a network that compute with the same weight."""
    return [m for m in model.modules() if m is not module and stored(m) is stored(module)]


def stored(module: nn.Module) -> Tensor | None:
    """Return the parameter that a module keeps its weight in; ``None`` where there is none, or several."""
    computed = getattr(module, "parametrizations", {})
    if "weight" in computed:
        return getattr(computed["weight"], "original", None)
    return module._parameters.get("weight")
