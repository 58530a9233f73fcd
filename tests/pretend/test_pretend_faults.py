"""The pretend device refuses what CUDA refuses, takes what it takes, and counts what it hides: planted mistakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cuda_mode import pretend
from cuda_tensor import CudaTensor, MixedDevices
from pretend_run import SMALL, SOON, advance, begin, host
from tally import counting
from torch import Tensor
from torch.nn import functional

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.prune.magnitude import Magnitude
from dstrun.train.training import Training


@pytest.fixture
def t() -> Any:
    """Tensors on the pretend device, and on the host (``h_``)."""
    with pretend():
        x, i = torch.arange(6.0), torch.arange(3)
        m = torch.linspace(-1, 1, 24).view(4, 6)
        there = {"x": x.to("cuda"), "i": i.cuda(), "m": m.to(torch.device("cuda")), "s": torch.ones((), device="cuda")}
        yield SimpleNamespace(**there, h_x=x, h_i=i, h_m=m, h_s=torch.tensor(2.0), h_g=torch.Generator())


REFUSED: dict[str, Callable[[Any], Any]] = {
    "add": lambda t: t.x + t.h_x,
    "add to a CPU tensor": lambda t: t.h_x.add_(t.x),
    "add to a CPU number": lambda t: t.h_s.add_(t.s),
    "a GPU number with a CPU tensor": lambda t: t.h_x * t.s,
    "cat": lambda t: torch.cat([t.x, t.h_x]),
    "stack": lambda t: torch.stack([t.s, t.h_s]),
    "where": lambda t: torch.where(t.x > 0, t.x, t.h_x),
    "searchsorted": lambda t: torch.searchsorted(t.x, t.h_x),
    "matrix product": lambda t: t.m @ t.h_m.T,
    "linear": lambda t: functional.linear(t.m, t.h_m),
    "convolution": lambda t: functional.conv2d(t.m[None, None], torch.ones(1, 1, 3, 3)),
    "labels on the CPU": lambda t: functional.cross_entropy(t.m, torch.zeros(4, dtype=torch.int64)),
    "a CPU tensor by a GPU index": lambda t: t.h_x[t.i],
    "writing where a GPU index says": lambda t: t.h_x.__setitem__(t.i, 1.0),
    "CPU values": lambda t: t.x.__setitem__(t.i, t.h_x[:3]),
    "index_add_": lambda t: t.x.index_add_(0, t.h_i, t.x[:3]),
    "gather": lambda t: t.x.gather(0, t.h_i),
    "isin": lambda t: torch.isin(t.i, t.h_i),
    "masked_fill_": lambda t: t.x.masked_fill_(t.h_x > 0, 0.0),
    "lists": lambda t: torch._foreach_add_([t.x], [t.h_x]),
    "lerp_": lambda t: t.x.lerp_(t.h_x, 0.1),
    "a CPU generator": lambda t: torch.rand(3, device="cuda", generator=t.h_g),
    "a CPU generator in place": lambda t: t.x.bernoulli_(0.5, generator=t.h_g),
    "a GPU generator": lambda t: torch.rand(3, generator=torch.Generator("cuda")),
    "numpy": lambda t: t.x.numpy(),
    "numpy's sort": lambda t: np.sort(t.x),
    "numpy of a gradient's copy": lambda t: np.asarray(t.m.clone().detach()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses(name: str, t: Any) -> None:
    with pytest.raises((MixedDevices, TypeError), match=r"\(test_pretend_faults\.py:\d+\)"):
        REFUSED[name](t)


COUNTED: dict[str, tuple[Callable[[Any], Any], tuple[int, int]]] = {
    "item": (lambda t: t.s.item(), (1, 0)),
    "float": (lambda t: float(t.s), (1, 0)),
    "bool": (lambda t: bool((t.x > 0).all()), (1, 0)),
    "if": (lambda t: 1 if t.s else 0, (1, 0)),
    "slice": (lambda t: t.x[: t.i[2]], (1, 0)),
    "an index of no dimensions": (lambda t: t.x[t.i[2]], (1, 0)),
    "range": (lambda t: range(t.i[2]), (1, 0)),
    "tolist": (lambda t: t.x.tolist(), (1, 0)),
    "print": (lambda t: f"{t.x}", (1, 0)),
    "nonzero": (lambda t: t.x.nonzero(), (1, 0)),
    "where": (lambda t: torch.where(t.x > 0), (1, 0)),
    "a mask": (lambda t: t.x[t.x > 2], (1, 0)),
    "writing to a mask": (lambda t: t.x.__setitem__(t.x > 2, t.m[0, :3]), (1, 0)),
    "masked_select": (lambda t: t.x.masked_select(t.x > 2), (1, 0)),
    "unique": (lambda t: t.i.unique(), (1, 0)),
    "bincount": (lambda t: t.i.bincount(), (1, 0)),
    "equal": (lambda t: torch.equal(t.x, t.x), (1, 0)),
    "repeats": (lambda t: t.x[:3].repeat_interleave(t.i), (1, 0)),
    "synchronize": (lambda t: torch.cuda.synchronize(), (1, 0)),
    "cpu": (lambda t: t.x.cpu(), (1, 1)),
    "to": (lambda t: t.x.to("cpu"), (1, 1)),
    "to a GPU": (lambda t: t.h_x.to(t.x.device), (1, 1)),
    "as another": (lambda t: t.h_i.to(t.x), (1, 1)),
    "a tensor of numbers": (lambda t: torch.tensor([1.0, 2.0], device="cuda"), (1, 1)),
    "copy_": (lambda t: t.x.copy_(t.h_x), (1, 1)),
    "copy_ to the CPU": (lambda t: t.h_x.copy_(t.x), (1, 1)),
    "a CPU index": (lambda t: t.x[t.h_i], (1, 1)),
    "a list as index": (lambda t: t.x[[0, 2]], (1, 1)),
    "a number to where an index says": (lambda t: t.x.__setitem__(t.i, 0.0), (1, 1)),
    "a truth value to where an index says": (lambda t: (t.x > 2).__setitem__(t.i, True), (1, 1)),
    "a number to rows and columns": (lambda t: t.m.__setitem__((t.i, t.i), 0), (1, 1)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_makes_the_host_wait(name: str, t: Any) -> None:
    act, expected = COUNTED[name]
    with counting() as tally:
        act(t)
    assert tally.totals[1:] == expected
    assert all(place.startswith("test_pretend_faults.py:") for _, place in [*tally.waits, *tally.copies])


FREE: dict[str, Callable[[Any], Tensor]] = {
    "a number": lambda t: t.x * 2.0 + 1,
    "a CPU number": lambda t: t.x * t.h_s,
    "a CPU number and a GPU one": lambda t: t.h_s - t.s,
    "where with a CPU number": lambda t: torch.where(t.x > 0, t.x, t.h_s),
    "a number filled in where an index says": lambda t: t.x.index_fill_(0, t.i, 0.0),
    "a number written to a mask": lambda t: (t.x.__setitem__(t.x > 2, 0.0), t.x)[1],
    "a number written to a slice": lambda t: (t.x.__setitem__(slice(1, 3), 0.0), t.x)[1],
    "a number to a mask": lambda t: t.x.index_put_((t.x > 2,), torch.tensor(0.0)),
    "slices": lambda t: t.m[1:, ::2].t().reshape(-1),
    "a GPU index": lambda t: t.m[:, t.i],
    "made there": lambda t: torch.zeros(3, device="cuda") + torch.arange(3, device=t.x.device) + t.x.new_ones(3),
    "a GPU generator": lambda t: torch.rand(3, device="cuda", generator=torch.Generator("cuda")),
    "another type": lambda t: t.i.to(torch.float64).double().sum(),
    "lists with a CPU number": lambda t: torch._foreach_mul([t.x], t.h_s)[0],
}


@pytest.mark.parametrize("name", FREE)
def test_what_cuda_takes_without_a_word(name: str, t: Any) -> None:
    with counting() as tally:
        found = FREE[name](t)
    assert isinstance(found, CudaTensor)
    assert tally.totals[1:] == (0, 0)
    assert tally.launches


def _mask_on_the_cpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    for layer in run.layers:
        layer.idle = host(layer.idle)


def _topology_on_the_gpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    for layer in run.layers:
        layer._topology = type(layer.topology)(layer.topology.shape, layer.at)


def _images_on_the_cpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    run.data._train_x = host(run.data._train_x)


def _batch_not_moved(run: Training, patch: pytest.MonkeyPatch) -> None:
    batch = run.data.batch
    patch.setattr(run.data, "batch", lambda *asked: tuple(map(host, batch(*asked))))


def _labels_not_moved(run: Training, patch: pytest.MonkeyPatch) -> None:
    loss = run.loss
    patch.setattr(run, "loss", lambda logits, y: loss(logits, host(y)))


def _momentum_on_the_cpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    advance(run, 1)
    for state in run.optimizer.state.values():
        state["momentum_buffer"] = host(state["momentum_buffer"])


def _losses_added_up_on_the_cpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    run.loss_sum = host(run.loss_sum)


def _scores_drawn_with_a_cpu_generator(run: Training, patch: pytest.MonkeyPatch) -> None:
    def score(self: Magnitude, layer: MaskedLayer, generator: torch.Generator) -> Tensor:
        return torch.rand(layer.count, device=layer.weight.device, generator=generator)

    patch.setattr(Magnitude, "score", score)


def _ranked_by_numpy(run: Training, patch: pytest.MonkeyPatch) -> None:
    def chosen(scores: Tensor, count: int, *_: Any, **__: Any) -> Tensor:
        return torch.from_numpy(np.argsort(scores.numpy())[:count])

    patch.setattr("dstrun.method.dynamic.dst.chosen", chosen)


def _losses_read(run: Training, patch: pytest.MonkeyPatch) -> None:
    loss = run.loss

    def read(logits: Tensor, y: Tensor) -> Tensor:
        found = loss(logits, y)
        run.last["loss"] = float(found.detach())
        return found

    patch.setattr(run, "loss", read)


def _gradients_looked_at(run: Training, patch: pytest.MonkeyPatch) -> None:
    confine = MaskedLayer.confine_gradient

    def look(self: MaskedLayer) -> None:
        if self.weight.grad.isfinite().all():
            confine(self)

    patch.setattr(MaskedLayer, "confine_gradient", look)


def _rate_made_anew(run: Training, patch: pytest.MonkeyPatch) -> None:
    def set_rate(rate: float) -> None:
        for group in run.optimizer.param_groups:
            group["lr"] = torch.tensor(rate, device=run.device)

    patch.setattr(run, "_set_rate", set_rate)


def _masked_by_indices(run: Training, patch: pytest.MonkeyPatch) -> None:
    def confine(self: MaskedLayer) -> None:
        self.weight.grad[self.idle] *= 0

    patch.setattr(MaskedLayer, "confine_gradient", confine)


def _order_on_the_cpu(run: Training, patch: pytest.MonkeyPatch) -> None:
    run.data.begin(0)
    run.data._order = host(run.data._order)


Plant = Callable[[Training, pytest.MonkeyPatch], None]
MIXES: list[Plant] = [
    _mask_on_the_cpu,
    _topology_on_the_gpu,
    _images_on_the_cpu,
    _batch_not_moved,
    _labels_not_moved,
    _momentum_on_the_cpu,
    _losses_added_up_on_the_cpu,
    _scores_drawn_with_a_cpu_generator,
    _ranked_by_numpy,
]
STALLS: list[Plant] = [_losses_read, _gradients_looked_at, _rate_made_anew, _masked_by_indices, _order_on_the_cpu]


def _name(plant: Plant) -> str:
    return plant.__name__.strip("_")


@pytest.mark.parametrize("plant", MIXES, ids=_name)
def test_a_mix_planted_in_dstrun_is_refused(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend():
        run = begin([*SMALL["mlp"], "method=rigl", *SOON], "cuda")
        plant(run, monkeypatch)
        with pytest.raises((MixedDevices, TypeError), match=r"\(\S+\.py:\d+\)"):
            advance(run, 3)


@pytest.mark.parametrize("plant", STALLS, ids=_name)
def test_a_stall_planted_in_a_step_is_counted(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend():
        run = begin([*SMALL["mlp"], "method=static"], "cuda")
        advance(run, 1)
        plant(run, monkeypatch)
        taken = advance(run, 1)[0]
    assert taken.tally.waits
    assert all(".py:" in place for _, place in taken.tally.waits)


def test_afterwards_there_is_no_gpu() -> None:
    before = torch.Generator, torch.cuda.Event, torch.backends.cudnn.conv.fp32_precision
    with pretend():
        assert torch.cuda.is_available()
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert (torch.Generator, torch.cuda.Event, torch.backends.cudnn.conv.fp32_precision) == before
    assert not torch.are_deterministic_algorithms_enabled()
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            torch.zeros(1, device="cuda")
