"""Gradient checkpointing: parts of a network keep only their input and are recomputed in the backward pass.

Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dstrun.method.statistics import frozen_statistics
from dstrun.system.trouble import ConfigError

Context = Callable[[], AbstractContextManager[Any]]


class Recompute:
    """Decides when the chains of a network are recomputed: in passes that train, not in those that score or evaluate.

    Args:
        context: what a training forward pass runs in, entered again around a recomputation: autocast.

    Attributes:
        chains: how many chains of the network ask it.
    """

    def __init__(self, context: Context = nullcontext) -> None:
        self.context = context
        self.on = False
        self.chains = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        """Recompute what is passed forward inside."""
        before, self.on = self.on, True
        try:
            yield
        finally:
            self.on = before


class Chain(nn.Sequential):
    """An ``nn.Sequential`` that runs in segments, each recomputed in the backward pass; same state, same numbers."""

    recompute = Recompute()
    segments: Sequence[nn.Sequential] = ()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if not (self.recompute.on and torch.is_grad_enabled()):
            return super().forward(x)
        for segment in self.segments:
            trained = [p for p in segment.parameters() if p.requires_grad]
            x = _Segment.apply(segment, self.recompute.context, x, *trained)
        return x


def checkpoint(model: nn.Module, kind: str, recompute: Recompute) -> list[str]:
    """Turn the chains of a network into recomputed ones, segment by segment; parameters, buffers and state stay theirs.

    A chain is an outermost ``nn.Sequential``, with those nested in it laid out flat. Its blocks are the parts that have
    weights, each with the plain layers that follow it.

    Args:
        model: changed in place.
        kind: ``block``, a segment each block; or ``sqrt``, about as many segments as blocks in each, which is
            least memory where all blocks are alike.
        recompute: switches recomputation on and off.

    Returns:
        The names of all modules that are recomputed.

    Raises:
        ConfigError: the network has no chain.
    """
    chains = list(_chains(model))
    blocks = {name: list(_blocks(_flat(chain))) for name, chain in chains}
    count = sum(map(len, blocks.values()))
    if count < 2:
        raise ConfigError(
            f"checkpointing={kind} makes no sense with this model: it has no nn.Sequential of several blocks"
        )
    together = 1 if kind == "block" else round(math.sqrt(count))
    for name, chain in chains:
        parts = blocks[name]
        chain.__class__ = Chain
        segments = [parts[first : first + together] for first in range(0, len(parts), together)]
        runs = [nn.Sequential(*(module for block in segment for module in block)) for segment in segments]
        vars(chain).update(recompute=recompute, segments=runs)  # past nn.Module: they are in the chain already
    recompute.chains = len(chains)
    inside = {module for _, chain in chains for module in chain.modules()}
    return [name for name, module in model.named_modules() if module in inside]


def _chains(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Sequential]]:
    """Iterate over the outermost chains that have weights."""
    if type(module) is nn.Sequential:
        if any(_has_weights(part) for part in module):
            yield name, module
        return
    for leaf, child in module.named_children():
        yield from _chains(child, f"{name}.{leaf}".strip("."))


def _flat(chain: nn.Sequential) -> Iterator[nn.Module]:
    """Iterate over the parts of a chain and of the chains in it."""
    for part in chain:
        if type(part) is nn.Sequential:
            yield from _flat(part)
        else:
            yield part


def _blocks(parts: Iterator[nn.Module]) -> Iterator[list[nn.Module]]:
    """Group parts: a block begins with each that has weights; what stands before the first belongs to it."""
    block: list[nn.Module] = []
    begun = False
    for part in parts:
        weighs = _has_weights(part)
        if weighs and begun:
            yield block
            block = []
        block.append(part)
        begun |= weighs
    if block:
        yield block


def _has_weights(module: nn.Module) -> bool:
    """Return whether a module has a parameter that is more than a vector, or a sparse layer's values."""
    return any(p.dim() > 1 for p in module.parameters()) or any(hasattr(part, "pattern") for part in module.modules())


class _Segment(torch.autograd.Function):
    """A segment that keeps its input; parameters are inputs too, so that their gradients arrive as any others do."""

    @staticmethod
    def forward(ctx: Any, segment: nn.Sequential, context: Context, x: Tensor, *trained: Tensor) -> Tensor:
        draws, version = _draws(x), x._version
        y = segment(x)
        drew = any(not torch.equal(*states) for states in zip(draws, _draws(x), strict=True))
        ctx.segment, ctx.context, ctx.trained, ctx.draws = segment, context, trained, draws if drew else ()
        if x._version != version:
            raise RuntimeError(
                f"checkpointing: {type(segment[0]).__name__} changes its input in place, so that it cannot be "
                "recomputed: give it inplace=False"
            )
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_(ctx.needs_input_grad[2])
        with torch.enable_grad(), ctx.context(), frozen_statistics(ctx.segment), _drawn_again(ctx.draws, x):
            y = ctx.segment(x)
        wanted = [x, *ctx.trained] if x.requires_grad else list(ctx.trained)
        found = torch.autograd.grad(y, wanted, delta, allow_unused=True)
        return None, None, *(found if x.requires_grad else (None, *found))


def _draws(x: Tensor) -> Sequence[Tensor]:
    """Return the state of the generators that dropout draws from, of the CPU and of a GPU."""
    return (torch.get_rng_state(), *((torch.cuda.get_rng_state(x.device),) if x.is_cuda else ()))


@contextmanager
def _drawn_again(states: Sequence[Tensor], x: Tensor) -> Iterator[None]:
    """Draw what was drawn from these states, if anything was; afterwards the generators are where they were."""
    if not states:
        yield
        return
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, x.device)
        yield
