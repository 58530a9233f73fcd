"""A run is of its images: what has been trained on others is neither done nor continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.dataset.digits import Digits
from dstrun.launcher.local import Local
from dstrun.launcher.sweep import Sweep
from dstrun.record import sealed
from dstrun.record.folder import RunFolder
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError

SMALL = ["model=mlp", "dataset=digits", "dataset.limit=128", "epochs=1", "wandb=disabled", "threads=1"]
SENTENCE = "was trained on other images"


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return compose([*SMALL, f"results={tmp_path}"])


def shifted(monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    """Have other files in the place of the data set; with ``by`` above 0, of other images."""
    load = Digits.load

    def other(self, cache=None):
        images = load(self, cache)
        return replace(images, train_x=images.train_x + by, source="f" * 64)

    monkeypatch.setattr(Digits, "load", other)
    monkeypatch.setattr(Digits, "found", lambda self: "f" * 64)


def test_a_record_says_its_images_network_and_own_code(experiment: Experiment) -> None:
    record = run(experiment).record
    assert record is not None
    assert len(record["data"]["checksum"]) == len(record["network"]["shapes"]) == 64
    assert record["code"]["own"] == {}
    sparse = compose([*experiment.command, "backend=sparse"])
    again = run(sparse).record
    assert again is not None
    assert again["network"]["shapes"] == record["network"]["shapes"]
    wider = compose([*experiment.command, "model.width=2"])
    other = run(wider).record
    assert other is not None
    assert other["network"]["shapes"] != record["network"]["shapes"]


def test_a_done_run_of_other_images_is_refused(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(experiment).state == "done"
    assert run(experiment).message == "already done"
    with monkeypatch.context() as patch:
        shifted(patch, 0)
        assert run(experiment).message == "already done"  # other files of the same images
        assert len(Sweep([experiment], Local(), "local").endings) == 1
    shifted(monkeypatch, 1)
    for start in (lambda: run(experiment), lambda: Sweep([experiment], Local(), "local")):
        with pytest.raises(ConfigError, match=SENTENCE) as error:
            start()
        assert "set experiment= to keep them apart" in str(error.value)


def test_an_older_record_is_known_by_its_source(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment)
    path = RunFolder(experiment.config, experiment.choices).path / "record.json"
    record = json.loads(path.read_text())
    del record["data"]["checksum"]
    sealed.write(path, record)
    assert run(experiment).message == "already done"
    shifted(monkeypatch, 0)
    with pytest.raises(ConfigError, match=SENTENCE):
        run(experiment)


def test_a_checkpoint_of_other_images_is_not_continued(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment)
    path = RunFolder(experiment.config, experiment.choices).path / "record.json"
    path.unlink()
    with monkeypatch.context() as patch:
        shifted(patch, 1)
        with pytest.raises(ConfigError, match=SENTENCE):
            run(experiment)
    shifted(monkeypatch, 0)
    assert run(experiment).state == "done"
