"""Runs evaluated again."""

from __future__ import annotations

import json

import pytest
from small_run import SMALL

from dstrun.cli.main import main
from dstrun.config.composition import compose
from dstrun.run.lifecycle import run

WORDS = [*SMALL, "epochs=1", "threads=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with finished runs: evaluated on the test images; on held-out ones, in 16 bits and by parts."""
    folder = tmp_path_factory.mktemp("evaluated")
    more = [[], ["dataset.validation=300", "precision=bf16", "microbatch=32", "method=topkast"]]
    return folder, *(run(compose([*WORDS, f"results={folder}/results", *words])).folder for words in more)


@pytest.fixture(autouse=True)
def _there(trained, monkeypatch) -> None:
    monkeypatch.chdir(trained[0])


def evaluated(capsys, *words):
    assert main(["eval", *words, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    return row


def test_the_numbers_of_the_record_bit_for_bit(trained, capsys):
    for folder, split, images in ((trained[1], "test", 360), (trained[2], "validation", 300)):
        row, record = evaluated(capsys, folder.id), folder.record()
        assert {key: row[key] for key in ("top1", "top5", "loss")} == {
            key: record["accuracy"][key] for key in ("top1", "top5", "loss")
        }
        assert (row["agrees"], row["split"], row["images"]) == (True, split, images)


def test_other_splits_are_other_numbers(trained, capsys):
    test = evaluated(capsys, trained[2].id, "--split", "test")
    train = evaluated(capsys, trained[2].id, "--split", "train")
    held = evaluated(capsys, trained[1].id, "dataset.validation=300", "--split", "val")
    assert [(row["split"], row["images"], row["agrees"]) for row in (test, train, held)] == [
        ("test", 360, None), ("train", 1137, None), ("validation", 300, None),
    ]  # fmt: skip
    assert len({row["loss"] for row in (test, train, held)}) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dataset=cifar10", "dataset.root=here"], "dataset has images of 3x32x32, and the network takes 1x8x8"),
        (["dataset=kmnist"], "dataset has images of 1x28x28, and the network takes 1x8x8"),
        (["dataset.limt=3"], "dataset.limt is not a setting of this dataset"),
        (["dataset.validation=-1"], "dataset.validation=-1 must be at least 0"),
        (["dataset=digit"], "dataset=digit is not known"),
        (["epochs=3"], "epochs=3 makes no sense here: choose dataset=, dataset.KEY= or device="),
        (["~dataset.limit"], "~dataset.limit makes no sense here"),
        (
            ["--split", "val"],
            "--split val has no images, as none were held out: set dataset.validation=N to hold out N",
        ),
        (["device=gpu"], "device=gpu is not known"),
    ],
)
def test_what_it_cannot_be_evaluated_on_is_said(trained, capsys, words, sentence):
    assert main(["eval", trained[1].id, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_other_numbers_than_the_record_has_are_said(trained, capsys):
    from dstrun.record import sealed

    path = trained[1].path / "record.json"
    before = path.read_bytes()
    try:
        record = sealed.read(path)
        sealed.write(path, record | {"accuracy": record["accuracy"] | {"top1": 1.0}})
        assert main(["eval", trained[1].id]) == 0
    finally:
        path.write_bytes(before)
    assert "the numbers differ from the record" in capsys.readouterr().err
