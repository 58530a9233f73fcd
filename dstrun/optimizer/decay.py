"""Which parameters weight decay acts on: all, or the weights of layers alone (``optimizer.decay``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def groups(model: nn.Module, parameters: Iterable[Any], decay: str) -> list[dict[str, Any]]:
    """Return the optimizer's groups, with those parameters apart that weight decay spares.

    Args:
        model: whose parameters they are.
        parameters: of it, or groups of them; one that a method keeps ``apart`` has a weight decay of its own.
        decay: ``all``, or ``weights``: neither biases nor parameters of normalization.
    """
    given = list(parameters)
    found = given if given and isinstance(given[0], dict) else [{"params": given}]
    if decay == "all":
        return found
    spared, result = _spared(model), []
    for group in found:
        if "apart" in group:
            result.append(group)
            continue
        members = list(group["params"])
        result += [
            group | {"params": [p for p in members if id(p) not in spared]},
            group | {"params": [p for p in members if id(p) in spared], "weight_decay": 0.0},
        ]
    return [group for group in result if group["params"]]


def _spared(model: nn.Module) -> set[int]:
    """Name the parameters of normalization, and every one called a bias."""
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if "bias" in name or "Norm" in type(module).__name__
    }
