"""``backend=auto`` keeps what trains whole steps fastest, once for everything that a step depends on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dstrun.config.composition import compose
from dstrun.config.schema import KNOWN
from dstrun.run import assemble as put
from dstrun.run import choose as rule
from dstrun.run.blueprint import Blueprint
from dstrun.run.noise import NoiseExperiment
from dstrun.system.ranks import Ranks
from dstrun.train.training import Training

CPU = torch.device("cpu")
TINY = ["model=mlp", "model.width=0.1", "dataset=digits", "method=static", "sparsity=0.8", "backend=auto"]
TINY += ["batch_size=16", "epochs=2", "wandb=disabled", "device=cpu"]
MIX = ["masked", "sparse", "masked"]


@cache
def blueprint(*words: str) -> Blueprint:
    composed = compose([*TINY, *words])
    return Blueprint(NoiseExperiment(composed.config, composed.choices))


class Bench:
    """Stands in for training: ``seconds`` of a step by what the first two layers are stored as."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path, **seconds: float) -> None:
        self.seconds, self.cache, self.built = seconds, cache, list[list[str]]()
        monkeypatch.setattr(rule, "warmed", lambda training: training)
        monkeypatch.setattr(rule, "turn", lambda training: self.seconds["_".join(training.backends[:2])])
        monkeypatch.setattr(rule, "mixed", lambda *_: MIX)
        monkeypatch.setattr(rule.gc, "collect", int)  # nothing was built, and a test process holds much

    def build(self, _blueprint: Blueprint, _data: Any, backends: list[str]) -> Any:
        self.built.append(backends)
        return SimpleNamespace(backends=backends, memory=SimpleNamespace(peaks={"step": 1000}))

    def choose(self, *words: str, ranks: Ranks = put.ALONE) -> list[str]:
        return rule.choose(blueprint(*words), CPU, self.cache, self.build, ranks)


Made = Callable[..., Bench]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    def make(masked: float = 1.0, sparse: float = 0.5, mix: float = 9.0) -> Bench:
        seconds = {"masked_masked": masked, "sparse_sparse": sparse, "masked_sparse": mix}
        return Bench(monkeypatch, tmp_path / "cache" / "backend.json", **seconds)

    return make


@pytest.mark.parametrize(
    ("masked", "sparse", "mix", "chosen"),
    [
        (1.0, 2.0, 2.0, ["masked"] * 3),
        (2.0, 1.0, 2.0, ["sparse"] * 3),
        (2.0, 1.0, 0.9, MIX),
        (2.0, 1.0, 0.98, ["sparse"] * 3),  # a mixture has to be clearly faster
    ],
)
def test_the_fastest_whole_step_is_chosen(
    masked: float, sparse: float, mix: float, chosen: list[str], bench: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench(masked, sparse, mix)
    for _ in range(2):
        assert made.choose() == chosen
    assert made.built == [["sparse"] * 3, ["masked"] * 3, MIX]  # once, the smallest first
    said = capsys.readouterr().err
    assert said.count("backend=auto times training steps of masked and sparse; ") == 1
    assert said.count("backend=auto chooses ") == 2


ANEW = [
    *("batch_size=32", "microbatch=8", "activations=lean", "checkpointing=block", "precision=bf16", "weights=bf16"),
    *("state=bf16", "optimizer=adam", "optimizer.momentum=0", "sparsity=0.9", "model.width=0.2", "method=set"),
    *("allocation=uniform", "label_smoothing=0.1"),
]
ALIKE = ["seed=1", "epochs=5", "optimizer.lr=0.01", "dataset.limit=320", "sparsity=0.8001", "experiment=other"]


@pytest.mark.parametrize(("word", "choices"), [*((word, 2) for word in ANEW), *((word, 1) for word in ALIKE)])
def test_what_a_step_depends_on_and_nothing_else_is_timed_anew(word: str, choices: int, bench: Made) -> None:
    made = bench()
    made.choose()
    made.choose(word)
    assert len(made.built) == 3 * choices
    assert len(json.loads(made.cache.read_text())) == choices


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (torch, "get_num_threads", lambda: 64),
        (torch, "__version__", "9.9"),
        (rule, "processor", lambda: "another"),
        (rule, "kernels", lambda: "others"),
        (rule, "__version__", "9.9"),
        (rule, "version", lambda _: "9.9"),
        (rule, "code", lambda _: {"mine": "changed"}),
    ],
)
def test_another_machine_or_version_is_timed_anew(
    where: Any, name: str, value: Any, bench: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    made.choose()
    monkeypatch.setattr(where, name, value)
    made.choose()
    assert len(made.built) == 6


OTHER_WORDS = ("batch_size", "device", "threads", "dataset", "sparsity", "allocation", "distributed", "trusted")
"""Settings that the key notes in other words: as counts, shapes, the share of a batch, code."""
NOT_IN_A_STEP = (
    *("seed", "epochs", "scope", "initialization", "early_stop", "init", "backend", "strict", "experiment", "results"),
    *("tracker", "wandb", "checkpoint", "retry", "fail_fast", "prune", "grow", "subset", "schedule", "recipe"),
)


def test_every_setting_is_in_the_key_or_in_no_ordinary_step() -> None:
    """A new setting has to be put into one of the three lists."""
    assert sorted([*rule.STEP, *OTHER_WORDS, *NOT_IN_A_STEP]) == sorted(KNOWN)


DAMAGE = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"k": 1' + b" " * (rule.BYTES + 1) + b"}"]
TIMES = {"masked": 1.0, "sparse": 0.5}
WRONG = [
    *(None, 1, [], {}, {"seconds": 1}, {"seconds": {"masked": 1.0}}, {"seconds": TIMES | {"third": 1.0}}),
    *({"seconds": TIMES | {"masked": bad}} for bad in (0.0, -1.0, 1e400, "a", True, None)),
    *({"seconds": TIMES | {"mixed": 0.1}, "layers": bad} for bad in (None, 1, MIX[:2], ["other"] * 3, [[]] * 3)),
]


@pytest.mark.parametrize("damage", [*DAMAGE, *WRONG], ids=lambda damage: str(damage)[:60])
def test_what_is_no_choice_is_measured_again(damage: Any, bench: Made) -> None:
    made = bench()
    assert made.choose() == ["sparse"] * 3
    whole = made.cache.read_bytes()
    broken = damage if isinstance(damage, bytes) else json.dumps(dict.fromkeys(json.loads(whole), damage)).encode()
    made.cache.write_bytes(broken)
    assert made.choose() == ["sparse"] * 3
    assert made.cache.read_bytes() == whole
    assert len(made.built) == 6


def test_a_cache_that_others_may_write_is_not_believed(bench: Made) -> None:
    made = bench()
    made.choose()
    made.cache.chmod(0o666)
    made.choose()
    assert len(made.built) == 6


@pytest.mark.parametrize("cache", ["file/backend.json", "folder"])
def test_a_cache_that_cannot_be_written_is_done_without(cache: str, tmp_path: Path, bench: Made) -> None:
    made = bench()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    made.cache = tmp_path / cache
    assert made.choose() == ["sparse"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_does_not_fit_into_memory_is_left_out_and_asked_again(
    bench: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(masked=0.1)
    monkeypatch.setattr(rule, "free_bytes", lambda _: 2000)
    assert made.choose() == ["sparse"] * 3
    assert made.built == [["sparse"] * 3]
    assert not made.cache.exists()
    monkeypatch.setattr(rule, "free_bytes", lambda _: 10**12)
    assert made.choose() == ["masked"] * 3


def test_where_one_backend_is_all_that_can_train_nothing_is_timed(bench: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "able", lambda *_: [["masked"]] * 3)
    made = bench()
    assert made.choose() == ["masked"] * 3
    assert made.built == []


class Three(Ranks):
    """One of four processes; it hears what the first has chosen."""

    rank, size = 2, 4

    def broadcast(self, make: Callable[[], Any]) -> Any:
        return MIX


def test_the_first_process_chooses_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(put, "choose", lambda *_: pytest.fail("timed"))
    assert put.pick_backends(blueprint(), CPU, Three()) == MIX


def test_a_process_times_its_share_of_a_batch(bench: Made) -> None:
    made, seen = bench(), []
    build = made.build
    made.build = lambda print_, data, backends: (  # type: ignore[method-assign]
        seen.append((print_.experiment.config["batch_size"], data.batch_size)) or build(print_, data, backends)
    )
    made.choose(ranks=Three())
    assert set(seen) == {(4, 4)}
    made.choose("batch_size=4")  # as a single process with such a batch
    assert len(made.built) == 3


def trial(taken: dict[str, list[float]]) -> tuple[dict[str, Callable[[], float]], list[str]]:
    order: list[str] = []
    rounds = {name: iter(times) for name, times in taken.items()}
    return {name: lambda name=name: (order.append(name), next(rounds[name]))[1] for name in taken}, order


def test_turns_end_once_one_is_clearly_the_fastest() -> None:
    turns, order = trial({"a": [1.0] * 99, "b": [2.0] * 99})
    assert rule.compare(turns) == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert order == ["a", "b", "b", "a", "a", "b"]


SLOW = [1.0, 5.0, 1.0, 4.0, 1.0, 1.0, 6.0, 1.0, 1.0]


def test_what_is_close_takes_more_turns_and_what_disturbs_a_round_counts_for_none() -> None:
    turns, order = trial({"a": [1.05 * t for t in SLOW], "b": SLOW, "c": [1.5] * 9})
    assert rule.in_proportion(rule.compare(turns)) == pytest.approx({"a": 1.05, "b": 1.0, "c": 1.5})
    assert len(order) == 3 * rule.ROUNDS[1]


def test_a_mixture_is_compared_with_the_best_by_its_worse_rounds() -> None:
    mixture = [0.9 * t for t in SLOW[:6]] + [1.1 * t for t in SLOW[6:]]
    found = rule.in_proportion({"a": [2 * t for t in SLOW], "b": SLOW, rule.MIXED: mixture})
    assert found == pytest.approx({"a": 2.0, "b": 1.0, rule.MIXED: 1.1})


def test_slow_steps_are_taken_until_time_is_over() -> None:
    turns, order = trial({"a": [9.0] * 9, "b": [9.1] * 9})
    times = iter([0.0, 19.0, 38.0])
    rule.compare(turns, lambda: next(times))
    assert len(order) == 4


def real(*words: str) -> Training:
    composed = compose([*TINY, *words])
    return put.assemble(NoiseExperiment(composed.config, composed.choices), CPU)


def test_a_run_is_the_same_bits_as_on_what_was_chosen_and_draws_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path))
    monkeypatch.setattr(rule, "ROUNDS", (1, 1))
    before = random.getstate(), str(np.random.get_state())
    training = real()
    assert (tmp_path / "backend.json").is_file()
    assert (random.getstate(), str(np.random.get_state())) == before
    after, held = torch.get_rng_state(), [layer.backend for layer in training.layers]
    composed = compose(TINY)
    monkeypatch.setattr(put, "choose", lambda *_: pytest.fail("a run that resumes is timed"))
    given = put.assemble(NoiseExperiment(composed.config, composed.choices), CPU, held)
    assert torch.equal(torch.get_rng_state(), after)
    for each in (training, given):
        each.model.train()
        each.prepare()
        each.take_step()
        with each.memory.phase("step"):
            each.take_step()
    assert training.memory.peaks == given.memory.peaks
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, given.model.state_dict()[name])


@pytest.mark.parametrize("interval", [1, 2])
def test_ordinary_steps_are_timed(interval: int, monkeypatch: pytest.MonkeyPatch) -> None:
    training = rule.warmed(real("method=set", f"schedule.interval_steps={interval}", "backend=masked"))
    assert training.memory.peaks.keys() == {"step"}
    monkeypatch.setattr(rule, "TURN", 0.0)
    assert rule.turn(training) > 0
    assert training.updates == 0
    assert (training.step == 1) == (interval == 2)


def test_schedules_fit_into_the_steps_that_are_timed() -> None:
    """The noise has few images, and epochs as long as those of the data set."""
    words = ("schedule.updates=5", "method=set", "epochs=1")
    composed = compose([*TINY, *words])
    data = rule.Noise(composed.build("dataset"), 32).open(CPU, 16, 0)
    assert (data.train_count, data.steps_per_epoch) == (32, composed.build("dataset").train_images // 16)
    assert torch.equal(data.batch(0)[0], data.batch(2)[0])
    assert not torch.equal(data.batch(0)[0], data.batch(1)[0])
    assert real(*words, "backend=masked").total_steps == data.steps_per_epoch
