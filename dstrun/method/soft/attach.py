"""Attach a module that computes a layer's weights, find it, and remove it: active weights become the topology."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dstrun.layer.interface import DenseLayer, sharing
from dstrun.method.pruning import drop, guard
from dstrun.method.update import LayerUpdate
from dstrun.system.lazy import torch
from dstrun.system.transfer import fetched, sent

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = TypeVar("Kind", bound="nn.Module")


def attach(model: nn.Module, layers: Iterable[Any], make: Callable[[Tensor], nn.Module]) -> None:
    """Parametrize the weight of every layer with a module made from the stored weight, after powerprop's.

    What shares a layer's weight shares the module.
    """
    for layer in layers:
        made = make(layer.weight)
        for module in (layer.module, *sharing(model, layer.module)):
            torch.nn.utils.parametrize.register_parametrization(module, "weight", made)


def attached(layer: DenseLayer, kind: type[Kind]) -> Kind:
    """Return the module that ``attach`` made for a layer."""
    made = layer.module.parametrizations["weight"][-1]  # type: ignore[index]
    assert isinstance(made, kind)
    return made


def grouped(model: nn.Module, weight_decay: float, apart: Sequence[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's parameters in two groups, some apart with a weight decay of their own."""
    ids = {id(p) for p in apart}
    rest = [p for p in model.parameters() if id(p) not in ids]
    groups: list[dict[str, Any]] = [
        {"params": rest, "weight_decay": weight_decay},
        {"params": list(apart), "weight_decay": decay},
    ]
    return [group for group in groups if group["params"]]


def but(parameters: Iterable[Any], apart: Iterable[nn.Parameter]) -> list[Any]:
    """Return an optimizer's parameters, or groups of them, without some."""
    ids = {id(p) for p in apart}
    left: list[Any] = []
    for given in parameters:
        if isinstance(given, dict):
            left.append({**given, "params": but(given["params"], apart)})
        elif id(given) not in ids:
            left.append(given)
    return [given for given in left if not isinstance(given, dict) or given["params"]]


def nonzero(layers: Iterable[DenseLayer]) -> list[int]:
    """Count the weights of each layer that its forward pass multiplies by: those computed that are not 0."""
    with torch.no_grad():
        return torch.stack([layer.module.weight.count_nonzero() for layer in layers]).tolist()


def settle(layers: Sequence[DenseLayer], active: Sequence[Tensor], strict: bool) -> list[LayerUpdate]:
    """Set the topology to the active weights, and prune all others in storage and optimizer.

    Args:
        layers: whose other connections are no longer needed.
        active: bool of each layer's weight shape.
        strict: refuse a layer without connections instead of warning.

    Raises:
        EmptyLayer: so that nothing is pruned.
    """
    positions = [sent(layer.topology.positions, layer.weight.device) for layer in layers]
    kept = fetched([mask.flatten()[at] for at, mask in zip(positions, active, strict=True)])
    emptied = [layer.name for layer, keep in zip(layers, kept, strict=True) if layer.count and not keep.any()]
    guard(emptied, len(layers), strict)
    return [drop(layer, (~keep).nonzero().flatten()) for layer, keep in zip(layers, kept, strict=True)]
