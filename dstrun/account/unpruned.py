"""What is not prunable in a network: by module, with its parameters and FLOPs, and why.

Biases, norms and other vectors are left out: they are dense in every network. What is never used, or frozen, is named
whole, they included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dstrun.account.survey import Product, Survey
from dstrun.layer.interface import prunable, stored

UNUSED, FROZEN, OTHER = "never used in the forward pass", "frozen", "no kind that can be pruned"
NORMS = _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm
COMPUTED = ".parametrizations."


@dataclass(frozen=True)
class Unpruned:
    """A part of a network that no method prunes.

    Attributes:
        name: path of the module, parameter or buffer; empty for numbers that no module holds.
        kind: class of the module, ``Parameter``, ``Buffer`` or ``constant``.
        parameters: how many, biases included.
        flops: of its products in a sample's forward pass.
        why: not prunable.
    """

    name: str
    kind: str
    parameters: int
    flops: int
    why: str


def unpruned(model: nn.Module, seen: Survey, products: Sequence[Product]) -> list[Unpruned]:
    """List what is not prunable, in the order of the network.

    Args:
        model: that was looked at.
        seen: what its pass has shown.
        products: those that no prunable layer does.
    """
    every = dict(model.named_parameters())
    weights = {id(stored(module)) for _, module in prunable(model)}
    left = {name for name, p in every.items() if id(p) not in weights}
    place = {name: n for n, name in enumerate([*every, *dict(model.named_buffers())])}
    flops: dict[str, int] = {}
    for product in products:
        owner = min(product.owners, key=place.__getitem__, default="")
        flops[owner] = flops.get(owner, 0) + product.flops
    found: list[tuple[str, str, list[str], str]] = []

    def take(named: Iterator[tuple[str, str, list[str]]], why: Callable[[str], str]) -> None:
        for path, kind, names in named:
            found.append((path, kind, names, why(path)))
            left.difference_update(names)

    take(_whole(model, {name for name in left if name not in seen.used}), lambda _: UNUSED)
    take(_whole(model, {name for name in left if not every[name].requires_grad}), lambda _: FROZEN)
    take(_modules(model, left, flops), lambda path: seen.dense.get(path) or _reason(model, path))
    known = {name for _, _, names, _ in found for name in names}
    rest = [(name, "Buffer" if name else "constant", [name], OTHER) for name in flops if name not in known]
    return [
        Unpruned(
            path, kind, sum(every[n].numel() for n in names if n in every), sum(flops.get(n, 0) for n in names), why
        )
        for path, kind, names, why in [*found, *rest]
    ]


def _whole(model: nn.Module, chosen: set[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Name the largest modules of which every parameter is chosen, and single parameters beside them."""
    for path, module in model.named_modules():
        names = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters()]
        names = [name for name in names if name in chosen]
        if path and names and len(names) == sum(1 for _ in module.parameters()):
            chosen = chosen - set(names)
            yield path, type(module).__name__, names
    for name in sorted(chosen):
        yield name, "Parameter", [name]


def _modules(model: nn.Module, left: set[str], flops: dict[str, int]) -> Iterator[tuple[str, str, list[str]]]:
    """Name PyTorch's modules that have more than vectors, and the parameters that modules of another origin hold."""
    groups: dict[tuple[str, str], list[str]] = {}
    matrices: set[tuple[str, str]] = set()
    for name, parameter in model.named_parameters():
        if name not in left:
            continue
        path = name.partition(COMPUTED)[0] if COMPUTED in name else name.rpartition(".")[0]
        module = model.get_submodule(path)
        if isinstance(module, NORMS):
            continue
        ours = COMPUTED in name or type(module).__module__.startswith("torch.nn.")
        key = (path, type(module).__name__) if ours else (name, "Parameter")
        groups.setdefault(key, []).append(name)
        if parameter.dim() > 1 or flops.get(name):
            matrices.add(key)
    for key, names in groups.items():
        if key in matrices:
            yield *key, names


def _reason(model: nn.Module, path: str) -> str:
    """Return why a module is not prunable that no survey has marked."""
    module = dict(model.named_modules()).get(path)
    return OTHER if getattr(module, "prunable", True) else "kept dense"
