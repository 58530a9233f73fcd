"""A run may end before its last epoch, says so in its record, and is another run than a whole one."""

from __future__ import annotations

import io

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.config.identity import identity
from dstrun.run import lifecycle
from dstrun.run.assemble import assemble
from dstrun.run.finished import find
from dstrun.run.restore import restore
from dstrun.system.trouble import ConfigError
from dstrun.train.early import EarlyStop

WORDS = [
    *("model=mlp", "model.width=0.2", "dataset=digits", "dataset.validation=200", "epochs=12", "batch_size=300"),
    *("threads=1", "tracker=none", "device=cpu", "optimizer.lr=1e-9", "method=set", "sparsity=0.8"),
]
"""Next to nothing is learned, so that epochs soon get no better."""


@pytest.mark.parametrize(
    ("accuracies", "ends"), [([1, 2, 3, 4], None), ([1, 2, 2, 2], 4), ([3, 2, 1, 4], 3), ([0, 0, 0], 3)]
)
def test_it_ends_after_so_many_epochs_without_a_rise(accuracies: list[float], ends: int | None) -> None:
    early, found = EarlyStop(2), None
    for epoch, top1 in enumerate(accuracies, 1):
        early.look(epoch, top1, 10)
        found = found or (epoch if early.reached else None)
    assert found == ends


def test_not_before_the_budget_is_met_and_never_without_patience() -> None:
    early, never = EarlyStop(1, budget=10), EarlyStop()
    for epoch, active in enumerate([20, 20, 15], 1):
        early.look(epoch, 5, active)
        never.look(epoch, 5, active)
        assert not early.reached
    early.look(4, 5, 10)
    assert early.reached
    assert not never.reached


def test_a_run_ends_early_and_its_record_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lifecycle.run(compose([*WORDS, "early_stop=3"]))
    record = outcome.record
    assert record is not None, outcome.message
    early, flops = record["early_stop"], record["flops"]
    assert early["epoch"] == early["best_epoch"] + 3 < 12
    assert early["best_top1"] >= record["accuracy"]["top1"]
    ended = f"ended early, after epoch {early['epoch']} of 12: the best was {early['best_epoch']}"
    assert outcome.message == ended
    assert len((outcome.folder.path / "metrics.csv").read_text().splitlines()) == early["epoch"] + 1
    assert flops["train_x_dense"] == pytest.approx(flops["inference_x_dense"], rel=0.02)  # of as many dense epochs
    per_epoch = compose(WORDS).build("dataset").train_images // 300
    assert restore(find(outcome.folder.id)).training.data.steps_per_epoch == per_epoch


def test_stopped_and_continued_it_knows_the_best_epoch() -> None:
    made = compose([*WORDS, "early_stop=2"])
    training = assemble(made, torch.device("cpu"))
    for epoch, top1 in ((1, 50.0), (2, 40.0)):
        training.early.look(epoch, top1, sum(training.active()))
    saved = io.BytesIO()
    torch.save(training.state(), saved)
    saved.seek(0)
    again = assemble(made, torch.device("cpu"))
    again.load_state(torch.load(saved, weights_only=True))
    again.early.look(3, 50.0, sum(again.active()))
    assert again.over


def test_it_is_another_run_and_off_by_default() -> None:
    stopped, whole = (identity(compose([*WORDS, *more]).config) for more in (["early_stop=3"], []))
    assert stopped.keys() - whole.keys() == {"early_stop"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["early_stop=3", "dataset.validation=0"], "early_stop=3 needs validation images"),
        (["early_stop=0"], "early_stop=0 must be at least 1"),
        (["early_stop=3", "method=lth"], "makes no sense with method=lth, which trains more than once"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        compose([*WORDS, *words])
