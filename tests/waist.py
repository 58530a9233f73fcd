"""The contracts between methods, criteria and backends, checked while ``watched``: shapes, types, order.

What the protocols of ``dstrun.layer``, ``prune`` and ``subset`` say in their docstrings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from torch import Tensor

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.backend.sparse.layer import Sparse
from dstrun.cli.help import options
from dstrun.layer.growth import GrowthContext, Proposal
from dstrun.layer.topology import merged, without

CONF = Path(__file__).parents[1] / "conf"
LAYERS = (MaskedLayer, Sparse)
FIRST, SOME = 200, 16
"""So many calls of a method are checked, and of later ones each so many-th: a method may rewire at every step."""


def is_shaped(tensor: Tensor, *shape: int, floats: bool = True) -> None:
    assert tuple(tensor.shape) == shape
    assert tensor.dtype.is_floating_point if floats else tensor.dtype == torch.int64


def rises(positions: Tensor) -> bool:
    return bool((positions[1:] > positions[:-1]).all())


def are_positions(positions: Tensor, size: int) -> None:
    """Check positions of one layer in any order: (K,) int64, distinct, each in [0, size)."""
    is_shaped(positions, positions.numel(), floats=False)
    ordered = positions.sort().values
    assert rises(ordered)
    assert not len(ordered) or (ordered[0] >= 0 and ordered[-1] < size)


def is_topology(layer: Any) -> None:
    topology = layer.topology
    assert topology.positions.device.type == "cpu"
    assert rises(topology.positions)
    are_positions(topology.positions, topology.size)
    assert layer.count == topology.count
    assert topology.shape == layer.geometry.shape


def of_connections(found: Tensor, layer: Any) -> None:
    is_shaped(found, layer.count)
    assert found.dtype.itemsize >= 4


def is_proposal(found: Proposal, layer: Any) -> None:
    are_positions(found.positions, layer.topology.size)
    is_shaped(found.scores, found.positions.numel())
    assert found.positions.device == found.scores.device
    assert bool((found.scores[1:] <= found.scores[:-1]).all() | ~found.scores.isfinite().all())
    assert found.positions.numel() <= found.drawn


def is_rewired(layer: Any, rewire: Callable, prune: Tensor, grow: Tensor) -> None:
    prune, grow, before = prune.cpu(), grow.cpu(), layer.topology.positions
    for positions in (prune, grow):
        are_positions(positions, layer.topology.size)
    assert torch.isin(prune, before).all()
    rewire(layer, prune, grow)
    is_topology(layer)
    after, grown = layer.topology.positions, grow.sort().values
    assert torch.equal(after, merged(without(before, prune), grown))
    assert not layer.values().cpu()[torch.searchsorted(after, grown)].any()


def are_candidates(found: Tensor | None, _: Any, context: GrowthContext) -> None:
    if found is not None:
        assert found.device.type == "cpu"
        are_positions(found, context.size)
        assert not torch.isin(found, context.blocked).any()


def are_scores(found: Tensor, _: Any, gradient: Any, positions: Tensor | None, context: GrowthContext) -> None:
    is_shaped(found, context.size if positions is None else positions.numel())
    assert gradient is None or gradient.shape == found.shape


def are_priorities(found: Tensor, _: Any, layer: Any, generator: torch.Generator) -> None:
    is_shaped(found, layer.count)


def are_factors(found: tuple[Tensor, Tensor], _: Any, context: GrowthContext) -> None:
    out, groups = context.geometry.shape[0], context.geometry.groups
    is_shaped(found[0], groups, context.size // out)
    is_shaped(found[1], out)
    assert all(bool((factor >= 0).all() | ~factor.isfinite().all()) for factor in found)


OF_LAYERS = {"values": of_connections, "grad": of_connections, "proposal": is_proposal}
OF_OPTIONS = {
    "grow": {"candidates": are_candidates, "score": are_scores},
    "prune": {"score": are_priorities},
    "subset": {"factors": are_factors},
}
"""What is checked of what a method returns, given that and what it was called with."""


def classes(group: str) -> Iterator[type]:
    """Find the classes of all options of a group."""
    for name in options(group):
        module, _, kind = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())["_target_"].rpartition(".")
        yield getattr(import_module(module), kind)


@contextmanager
def watched() -> Iterator[Counter[str]]:
    """Check calls across the waist, the first and then some of each method; counts them by class and method."""
    seen: Counter[str] = Counter()

    def looks(name: str) -> bool:
        seen[name] += 1
        return seen[name] <= FIRST or seen[name] % SOME == 0

    def checking(kind: type, name: str, check: Callable) -> Callable:
        method = getattr(kind, name)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if looks(f"{kind.__module__}.{name}"):
                check(found, *args, **kwargs)
            return found

        return call

    def rewiring(kind: type) -> Callable:
        method = kind.rewire

        @wraps(method)
        def call(layer: Any, prune: Tensor, grow: Tensor) -> None:
            if looks(f"{kind.__module__}.rewire"):
                is_rewired(layer, method, prune, grow)
            else:
                method(layer, prune, grow)

        return call

    patches = [patch.object(kind, "rewire", rewiring(kind)) for kind in LAYERS]
    checked = [(kind, OF_LAYERS) for kind in LAYERS]
    checked += [(kind, checks) for group, checks in OF_OPTIONS.items() for kind in classes(group)]
    for kind, checks in checked:
        patches += [patch.object(kind, name, checking(kind, name, check)) for name, check in checks.items()]
    for one in patches:
        one.start()
    try:
        yield seen
    finally:
        for one in patches:
            one.stop()
