"""An optimizer whose state, and the weights it trains, are kept in 16 or 8 bits and unpacked a part at a time.

The optimizer itself computes every step, in float32, on a part of the numbers: it has to treat each number alone, as
SGD and Adam do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from dstrun.storage.blocks import BLOCK, POSITIVE, SIGNED, Grid, packed, unpacked
from dstrun.storage.rounding import TYPES, Draws, stochastic
from dstrun.system.stream import stream

PART = 1 << 14
"""Numbers unpacked at once on a CPU: their copies and what packing takes stay at about 1 MB."""

LARGE_PART = 1 << 20
"""The same elsewhere, where each of some 80 operations on a part is a launch."""

SQUARES = ("exp_avg_sq", "max_exp_avg_sq")
"""State that is kept as its root: squares have twice the range of what is squared."""

EXPONENTS = ".exponents"
"""Behind the name of a state that is kept in blocks: those of its blocks."""

REST = "compensation"
"""What rounding took off each weight, with ``rounding=kahan``."""


class _Part(NamedTuple):
    """Numbers of one parameter while a step is taken.

    Attributes:
        parameter: whose they are.
        here: which of them, in the order of memory.
        weight: (n,) float32, with its gradient; what the optimizer takes for a parameter.
    """

    parameter: Tensor
    here: slice
    weight: Tensor


class Packed(torch.optim.Optimizer):
    """Steps of an optimizer on parameters some of which are packed; ``state`` holds what is kept between steps.

    State of a packed weight's shape stays of that shape, 0 being 0 in every type, so that it is carried along by what
    knows nothing of packing; ``unpacked`` is for whatever moves numbers. Exponents of blocks are beside it.

    Args:
        inner: the optimizer, of all parameters; it keeps no state of its own from now on.
        weights: the parameters that are packed; in 16 bits if they are to be.
        state: of their state: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        compensated: keep what rounding a 16-bit weight takes off, 16 bits for each, instead of rounding at random.
        seed: of the run.
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        weights: Iterable[Tensor],
        state: torch.dtype = torch.float32,
        compensated: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner, self.kind, self.compensated, self.seed = inner, state, compensated, seed
        self.param_groups = inner.param_groups
        self.weights = {id(weight) for weight in weights}
        self.steps = 0
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._index = {id(p): index for index, p in enumerate(parameters)}
        self._step_supports_amp_scaling = any(p.dtype == torch.float16 for p in parameters)
        """Whether gradients come scaled (``GradScaler.step``): in float16, to scale them back would lose them."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update the weights, a part at a time; not where a ``GradScaler`` has found what is not finite."""
        if getattr(self, "found_inf", False):
            return
        self.steps += 1
        groups = self.param_groups
        try:
            for group in groups:
                for parts in _gathered(self._parts(group)):
                    self.inner.param_groups = [group | {"params": [part.weight for part in parts]}]
                    self.inner.step()
                    self.inner.param_groups = groups
                    while parts:  # so that nothing of them is left when the next ones are unpacked
                        self._put_back(parts.pop())
        finally:
            self.inner.param_groups = groups
            self.inner.state.clear()

    def before_growth(self, weight: Tensor) -> None:
        """Make the optimizer add the state that it needs for a weight whose connections grow."""
        prepare = getattr(self.inner, "before_growth", None)
        if prepare is not None and weight in self.state:
            self.inner.state[weight] = self.state[weight]
            prepare(weight)
            self.inner.state.clear()

    @contextmanager
    def unpacked(self, weight: Tensor) -> Iterator[None]:
        """Provide a weight's state in float32, then pack it again with rounding to nearest.

        Numbers that have not changed come out the same, but for those below ``blocks.RANGE`` of their new block.
        """
        state = self.state.get(weight, {})
        grids = {key: _grid(key) for key in state if _exponents(key) in state}
        for key, grid in grids.items():
            state[key] = unpacked(_flat(state[key]), state.pop(_exponents(key)), grid).view_as(state[key])
        try:
            yield
        finally:
            for key, grid in grids.items():
                codes, exponents = packed(_flat(state[key]), grid, None)
                state[key] = codes.view_as(state[key])
                state[_exponents(key)] = exponents

    def state_dict(self) -> dict[str, Any]:
        """Return settings, what is kept as it is kept, and how many steps were taken."""
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the state of another one that packs the same."""
        self.steps = state_dict["steps"]
        self.state.clear()
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group |= {key: value for key, value in saved.items() if key != "params"}
            for parameter, name in zip(group["params"], saved["params"], strict=True):
                for key, value in state_dict["state"].get(name, {}).items():
                    there = value.to(parameter.device, copy=True) if isinstance(value, Tensor) else value
                    self.state[parameter][key] = there

    def _parts(self, group: dict[str, Any]) -> Iterator[_Part]:
        """Unpack the numbers of a group that have gradients, part by part."""
        scale = getattr(self, "grad_scale", None)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if id(parameter) not in self.weights:
                if scale is not None:
                    parameter.grad.div_(scale.to(parameter.device))
                self.inner.state[parameter] = self.state[parameter]
                yield _Part(parameter, slice(None), parameter)
                continue
            parameter.grad = _laid_out(parameter.grad, parameter)
            values, gradient = _flat(parameter), _flat(parameter.grad)
            before = dict(self.state[parameter])  # without what the first part of a first step brings in
            for here in _slices(parameter):
                weight = values[here].float()
                if REST in before:
                    weight += _flat(before[REST])[here]
                numbers = gradient[here].float()
                if scale is not None:
                    numbers = numbers / scale.to(weight.device)
                    gradient[here] = numbers  # criteria read it after the step
                weight.grad = numbers
                self.inner.state[weight] = _unpacked(before, parameter.shape, here)
                yield _Part(parameter, here, weight)

    def _put_back(self, part: _Part) -> None:
        """Pack what a step has changed."""
        parameter, here, weight = part
        if parameter is weight:
            self.state[parameter] = self.inner.state.pop(parameter)
            return
        state, values = self.state[parameter], _flat(parameter)[here]
        seed = stream(self.seed, "rounding", self.steps, self._index[id(parameter)])
        draws = Draws(seed, here.start, weight.numel(), weight.device)
        if parameter.dtype != torch.float32:  # else the part was a view of it
            values.copy_(weight if self.compensated else stochastic(weight, parameter.dtype, draws.next()))
            if self.compensated:
                _room(state, REST, parameter, parameter.dtype)[here] = weight - values
        for key, value in self.inner.state.pop(weight).items():
            if not isinstance(value, Tensor) or value.shape != weight.shape:
                state[key] = value
            elif not value.is_floating_point() or self.kind == torch.float32:
                stored = _room(state, key, parameter, value.dtype)[here]
                if stored.data_ptr() != value.data_ptr():
                    stored.copy_(value)
            else:
                self._pack(state, key, part, value.sqrt_() if key in SQUARES else value, draws.next())

    def _pack(self, state: dict[str, Any], key: str, part: _Part, value: Tensor, draws: Tensor) -> None:
        parameter, here, _ = part
        grid = _grid(key)
        kind = grid.dtype if self.kind == torch.int8 else self.kind
        stored = _room(state, key, parameter, kind)[here]
        if self.kind != torch.int8:
            stored.copy_(stochastic(value, kind, draws))
            return
        if (name := _exponents(key)) not in state:
            state[name] = value.new_empty(-(-parameter.numel() // BLOCK), dtype=torch.int16)
        codes, exponents = packed(value, grid, draws)
        stored.copy_(codes)
        state[name][_blocks(here)] = exponents


def pack(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor], config: dict[str, Any]) -> torch.optim.Optimizer:
    """Return an optimizer that keeps weights and their state as a configuration asks; the same where it asks nothing.

    Args:
        optimizer: of all parameters; has taken no step.
        weights: whose state may be packed; they are stored as ``weights`` says already.
        config: of the run.
    """
    if config["weights"] == config["state"] == "fp32":
        return optimizer
    return Packed(optimizer, weights, TYPES[config["state"]], config["rounding"] == "kahan", config["seed"])


def _unpacked(state: dict[str, Any], shape: torch.Size, here: slice) -> dict[str, Any]:
    """Return a part of what a weight's state stands for: in float32, or as it is stored where that is no smaller.

    Args:
        state: as it is kept.
        shape: of the weight.
        here: which numbers of it.
    """
    found: dict[str, Any] = {}
    for key, value in state.items():
        if key == REST or key.endswith(EXPONENTS):
            continue
        if not isinstance(value, Tensor) or value.shape != shape:
            found[key] = value.clone() if isinstance(value, Tensor) else value
            continue
        part = _flat(value)[here]
        if (exponents := state.get(_exponents(key))) is not None:
            part = unpacked(part, exponents[_blocks(here)], _grid(key))
        elif value.dtype in (torch.bfloat16, torch.float16):
            part = part.float()
        else:
            found[key] = part
            continue
        found[key] = part.square_() if key in SQUARES else part
    return found


def _exponents(key: str) -> str:
    return key + EXPONENTS


def _grid(key: str) -> Grid:
    return POSITIVE if key in SQUARES else SIGNED


def _blocks(here: slice) -> slice:
    """Return which blocks a part has."""
    return slice(here.start // BLOCK, here.stop // BLOCK)


def _slices(parameter: Tensor) -> list[slice]:
    """Return the parts of a parameter; the first stands for all where there are no numbers (``dstrun plan``)."""
    size = PART if parameter.device.type == "cpu" else LARGE_PART
    parts = [slice(start, start + size) for start in range(0, parameter.numel(), size)]
    return parts[:1] if isinstance(parameter, FakeTensor) else parts


def _room(state: dict[str, Any], key: str, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return where numbers of a weight's shape are kept, flat; made when it is first asked for."""
    if key not in state:
        state[key] = torch.empty_like(like, dtype=dtype)
    return _flat(state[key])


def _gathered(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Gather parts until they are large enough to be worth a call."""
    held: list[_Part] = []
    for part in parts:
        held.append(part)
        if sum(p.weight.numel() for p in held) >= PART:
            yield held
            held = []
    if held:
        yield held


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient in the memory order of its parameter."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)


def _flat(tensor: Tensor) -> Tensor:
    """View a tensor without gaps in the order of its memory: (N,)."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
