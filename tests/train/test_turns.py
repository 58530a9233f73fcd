"""Runs that share a process: each finds it as it has left it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from dstrun.train.stop import ASKS, Stop
from dstrun.train.turns import pause, take_turns, together


def test_each_draws_as_if_alone() -> None:
    """Two draws of each between two turns of all, on the CPU; alone they would be six of one seed."""
    drawn: dict[int, list[float]] = {}

    def draw(seed: int) -> None:
        torch.manual_seed(seed)
        for _ in range(3):
            drawn.setdefault(seed, []).extend(torch.rand(2).tolist())
            pause()

    with torch.random.fork_rng(devices=[]):
        take_turns([partial(draw, seed) for seed in range(3)])
        for seed in range(3):
            torch.manual_seed(seed)
            assert drawn[seed] == [x for _ in range(3) for x in torch.rand(2).tolist()]


class Generator:
    """A CUDA generator, as far as it has states."""

    def __init__(self, state: list[int]) -> None:
        self.state = state

    def graphsafe_get_state(self) -> Generator:
        return Generator(self.state)

    def graphsafe_set_state(self, other: Generator) -> None:
        self.state = other.state

    def clone_state(self) -> Generator:
        return Generator(list(self.state))


@pytest.mark.parametrize("begun", [False, True])
def test_each_has_a_state_of_its_own_of_every_cuda_generator(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same object at every turn, and nobody else's, whether CUDA was started before or by the first of them."""
    default = Generator([7])
    monkeypatch.setattr(torch.cuda, "default_generators", (default,) if begun else ())
    found: dict[int, list[list[int]]] = {}

    def draw(run: int) -> None:
        monkeypatch.setattr(torch.cuda, "default_generators", (default,))
        for _ in range(3):
            default.state.append(run)
            found.setdefault(run, []).append(default.state)
            pause()

    take_turns([partial(draw, run) for run in range(3)])
    assert all(state is states[0] for states in found.values() for state in states)
    assert {run: states[0][-3:] for run, states in found.items()} == {run: [run] * 3 for run in range(3)}
    assert len({id(states[0]) for states in found.values()}) == 3


def test_each_prints_where_it_did(capfd: pytest.CaptureFixture[str], tmp_path) -> None:
    def write(name: str) -> None:
        with open(tmp_path / name, "w") as file:
            os.dup2(file.fileno(), 1)
        for _ in range(3):
            os.write(1, name.encode())
            pause()

    before = os.dup(1)
    try:
        take_turns([partial(write, name) for name in "ab"])
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert [(tmp_path / name).read_text() for name in "ab"] == ["aaa", "bbb"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_fails_hands_its_turn_on(capfd: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def turn(name: str, times: int) -> None:
        for _ in range(times):
            order.append(f"{name}{together()}")
            pause()
        if times == 1:
            raise SystemExit

    take_turns([partial(turn, "a", 3), partial(turn, "b", 1), partial(turn, "c", 2)])
    assert order == ["a3", "b3", "c3", "a3", "c3", "a3"]
    assert together() == 1
    pause()  # which means nothing here


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put back the handlers that were there."""
    before = {number: signal.getsignal(number) for number in ASKS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGXCPU])
def test_a_signal_asks_every_run(number: signal.Signals) -> None:
    heard: list[str | None] = []

    def train(run: int) -> None:
        with Stop() as stop:
            if run == 0:
                os.kill(os.getpid(), number)
            while stop.requested is None:  # the main thread hears of it
                time.sleep(0.01)
            pause()
        heard.append(stop.requested)

    with Stop():
        take_turns([partial(train, run) for run in range(2)])
    assert heard == [number.name] * 2


def test_a_second_interrupt_makes_all_leave() -> None:
    left: list[int] = []

    def train(run: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            while stop.requested is None:
                time.sleep(0.01)
            for _ in range(1000):
                pause()
                time.sleep(0.01)
        except KeyboardInterrupt:
            left.append(run)

    with Stop() as stop:
        take_turns([partial(train, run) for run in range(2)])
    assert stop.requested == "SIGINT"
    assert sorted(left) == [0, 1]
