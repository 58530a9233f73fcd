"""Signals stop a run after its step, reach a launcher's handler last, and mean nothing to forked children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import SMALL

from dstrun.config.composition import compose
from dstrun.run.lifecycle import run
from dstrun.train.stop import ASKS, TIMERS, Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Remove pytest's own timer, and put back the handlers a test sets."""
    before = {number: signal.getsignal(number) for number in ASKS}
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ASKS)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in ASKS]
    with Stop() as stop:
        assert stop.requested is None
        ask(number)
        assert stop.requested == number.name
    if number in TIMERS:  # the kernel sends SIGXCPU again every second
        before[ASKS.index(number)] = signal.SIG_IGN
    assert [signal.getsignal(n) for n in ASKS] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_repeated_it_changes_nothing(number: signal.Signals) -> None:
    with Stop() as stop:
        ask(signal.SIGUSR2)
        ask(number)
        assert stop.requested == "SIGUSR2"


def test_a_second_interrupt_leaves_at_once() -> None:
    with Stop() as stop:
        ask(signal.SIGINT)
        assert stop.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)


@pytest.mark.parametrize("number", ASKS)
def test_only_a_launchers_warning_is_passed_on(number: signal.Signals) -> None:
    heard: list[int] = []
    for each in ASKS:
        signal.signal(each, lambda n, _: heard.append(n))
    with Stop() as stop:
        ask(number)
        assert heard == ([number] if number in TIMERS else [])  # of somebody who set a timer
    stop.pass_on()
    assert heard == ([number] if number in (*TIMERS, signal.SIGUSR1, signal.SIGUSR2) else [])


@pytest.mark.parametrize("default", [signal.SIG_DFL, signal.SIG_IGN])
def test_nothing_is_passed_on_to_the_default(default: signal.Handlers) -> None:
    signal.signal(signal.SIGUSR2, default)
    with Stop() as stop:
        ask(signal.SIGUSR2)
    stop.pass_on()


FORK = """
import os, signal, sys, time
from dstrun.train.stop import Stop
heard = []
signal.signal(signal.SIGUSR2, lambda *_: heard.append("launcher"))
with Stop() as stop:
    child = os.fork()
    if child == 0:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        assert stop.requested is None and not heard
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM, status
    os.kill(os.getpid(), signal.SIGUSR2)
    assert stop.requested == "SIGUSR2"
child = os.fork()
if child == 0:  # no run is active: what the program set is left alone
    os.kill(os.getpid(), signal.SIGUSR2)
    os._exit(len(heard))
assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 1
"""


def test_forked_children_do_not_answer_for_the_run() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True)


def test_a_signal_while_a_run_is_put_together_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends as interrupted before its first step, and only then the launcher's handler runs; later it ends."""
    import dstrun.run.lifecycle

    experiment = compose([*SMALL, f"results={tmp_path}"])
    heard: list[str] = []

    def requeue(*_: object) -> None:
        (status,) = tmp_path.glob("default/*/status.json")
        heard.append(json.loads(status.read_text())["state"])

    signal.signal(signal.SIGUSR2, requeue)
    whole = dstrun.run.lifecycle.assemble

    def assemble(*arguments):
        ask(signal.SIGUSR2)
        assert heard == []
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(dstrun.run.lifecycle, "assemble", assemble)
        outcome = run(experiment)
    assert (outcome.state, outcome.message) == ("interrupted", "SIGUSR2 at step 0 of 33")
    assert heard == ["interrupted"]
    assert not outcome.folder.checkpoint.exists()
    assert run(experiment).state == "done"
    assert heard == ["interrupted"]
