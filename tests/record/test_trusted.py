"""What a folder holds is taken for this run's results only where it is, whole."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

from dstrun.config.composition import compose
from dstrun.record import folder as folders
from dstrun.record import sealed, valid
from dstrun.record.folder import RunFolder
from dstrun.report import load
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError
from dstrun.train import checkpoint

PUBLISHED = next((Path(__file__).parents[2] / "results/published").glob("*/*/record.json"))


def changed(record: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    node = record = json.loads(json.dumps(record))
    *above, last = key.split(".")
    for part in above:
        node = node[part]
    node[last] = value
    return record


def test_a_published_record_is_valid() -> None:
    assert valid.fault(sealed.read(PUBLISHED)) is None


@pytest.mark.parametrize("key", sorted(valid.REQUIRED | valid.OPTIONAL))
@pytest.mark.parametrize("value", [True, -5, "5", [[1]], 10**400], ids=repr)
def test_no_field_takes_what_it_cannot_be(key: str, value: Any) -> None:
    record = sealed.read(PUBLISHED) | {"network": {}, "rows": {}, "layers": [], "command": []}
    record["code"] = record["code"] | {"own": {}}
    texts = {"id", "label", "experiment", "accuracy.split", "data.source", "data.checksum"}
    if (
        (key == "command" and isinstance(value, list))
        or (key in texts and value == "5")
        or (key == "accuracy.loss" and value == -5)
    ):
        return
    assert valid.fault(changed(record, key, value)) is not None


def test_impossible_accuracies_and_shares_are_damage() -> None:
    record = sealed.read(PUBLISHED)
    for key, value in (
        ("accuracy.top1", 150),
        ("accuracy.top1", None),
        ("parameters.sparsity", 1.1),
        ("state", "lost"),
    ):
        assert valid.fault(changed(record, key, value))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*SMALL, "threads=1", f"results={tmp_path}"]


def of(words: list[str]) -> RunFolder:
    experiment = compose(words)
    return RunFolder(experiment.config, experiment.choices)


def test_another_runs_record_under_this_name_is_refused(words: list[str]) -> None:
    folder, other = of(words), of([*words, "optimizer.lr=0.06"])
    folder.path.mkdir(parents=True)
    record = {
        "id": folder.id, "state": "done", "label": "x", "seed": 0, "choices": dict(other.choices),
        "config": other.config, "accuracy": {"top1": 5.0},
    }  # fmt: skip
    sealed.write(folder.path / "record.json", record)
    with pytest.raises(ConfigError, match="belongs to another configuration or code under this name"):
        folder.record()
    sealed.write(folder.path / "record.json", record | {"config": folder.config})
    assert folder.record()
    sealed.write(folder.path / "record.json", record | {"config": folder.config, "code": {"own": {"mine": "0" * 16}}})
    with pytest.raises(ConfigError, match="another configuration or code"):
        folder.record()


def test_two_rates_that_shared_a_name_have_two() -> None:
    base = ["model=mlp", "dataset=digits", "method=rigl", "epochs=2"]
    one, two = (of([*base, f"optimizer.lr={rate}"]).id for rate in (0.027628, 0.081643))
    assert one != two


def test_a_run_under_its_older_name_is_pointed_out(words: list[str]) -> None:
    folder = of(words)
    folder.path.with_name(folder.id[: folders.OLD_DIGITS - folders.HASH_DIGITS]).mkdir(parents=True)
    with pytest.raises(ConfigError, match="dstrun migrate"):
        folder.record()


def test_a_damaged_record_is_made_again_and_kept(words: list[str], caplog: pytest.LogCaptureFixture) -> None:
    first = run(compose(words)).record
    folder = of(words)
    path = folder.path / "record.json"
    path.write_bytes(path.read_bytes().replace(b'"top1": ', b'"top1": 1', 1))
    ((found,), (warning,)) = (load.runs(folder.path), load.warnings(load.runs(folder.path)))
    assert (found.record, found.state) == (None, "damaged")
    assert "is damaged: its checksum does not match" in warning
    again = run(compose(words)).record
    assert first
    assert again
    assert first["accuracy"] == again["accuracy"]
    assert (folder.path / "record.damaged.json").exists()
    assert "the file is kept as record.damaged.json" in caplog.text


@pytest.mark.parametrize("name", ["metrics.csv", "topology.csv"])
@pytest.mark.parametrize("damage", ["gone", "cut", "header", "byte"])
def test_lost_rows_are_made_again_from_the_checkpoint(
    name: str, damage: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run(compose(words))
    folder, record = outcome.folder, outcome.record
    whole = (folder.path / name).read_bytes()
    path = folder.path / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": whole[:-9], "header": b"\0" + whole[1:], "byte": whole[:-3] + b"x" + whole[-2:]}[damage]
        )
    (found,) = load.runs(folder.path)
    load.rows_text(found, name)
    (folder.path / "record.json").unlink()
    with caplog.at_level(logging.WARNING):
        again = run(compose(words)).record
    assert path.read_bytes() == whole
    assert "is made again from the checkpoint" in caplog.text
    assert record
    assert again
    assert record["rows"] == again["rows"]


def test_readers_say_which_run_lacks_rows(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(compose(words)).folder
    path = folder.path / "metrics.csv"
    whole = path.read_bytes()
    for data in (b"", whole[: whole[:-1].rfind(b"\n") + 1], whole.replace(b"test", b"tesu", 1)):
        path.write_bytes(data)
        capsys.readouterr()
        load.metrics(load.runs(folder.path)[0])
        assert f"{path} is damaged: " in capsys.readouterr().err


def test_a_run_that_fails_before_it_begins_still_vouches_for_its_rows(words: list[str], capsys) -> None:
    first = run(compose(words)).folder
    (first.path / "record.json").unlink()
    before = sealed.read(first.path / "status.json")["rows"]
    folder = of(words)
    with folder.owned():
        folder.status(state="failed", message="no room for the network")
    assert sealed.read(first.path / "status.json")["rows"] == before
    rows = first.path / "metrics.csv"
    rows.write_bytes(rows.read_bytes().replace(b"test", b"tesu", 1))
    load.metrics(load.runs(first.path)[0])
    assert f"{rows} is damaged: " in capsys.readouterr().err


def test_many_rows_are_checked_and_a_run_that_lost_them_starts_again(
    words: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dstrun.record.writer.KEPT_BYTES", -1)
    first = run(compose(words))
    (first.folder.path / "record.json").unlink()
    assert run(compose(words)).record["rows"] == first.record["rows"]  # type: ignore[index]
    (first.folder.path / "record.json").unlink()
    (first.folder.path / "topology.csv").write_text("")
    assert run(compose(words)).record["rows"]["topology.csv"] == first.record["rows"]["topology.csv"]  # type: ignore[index]
    assert "the run starts from scratch" in caplog.text


def test_another_torch_continues_and_is_on_record(
    words: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "HERE", checkpoint.HERE | {"torch": "1.0"})
        folder = run(compose(words)).folder
    (folder.path / "record.json").unlink()
    record = run(compose(words)).record
    assert record
    assert [before["torch"] for before in record["continued"]] == ["1.0"]
    assert "not bit for bit" in caplog.text


def test_rows_of_a_finished_run_are_made_again_from_its_checkpoint(tmp_path: Path, caplog) -> None:
    words = ["model=mlp", "dataset=digits", "epochs=2", "threads=1", "wandb=disabled", f"results={tmp_path}"]
    folder = run(compose(words)).folder
    for name in ("topology.csv", "metrics.csv"):
        whole = (folder.path / name).read_bytes()
        for damaged in (whole[:-3], whole.replace(b"1", b"7", 1), None):
            if damaged is None:
                (folder.path / name).unlink()
            else:
                (folder.path / name).write_bytes(damaged)
            caplog.clear()
            assert run(compose(words)).message == "already done"
            assert (folder.path / name).read_bytes() == whole
            assert "made again from the checkpoint" in caplog.text
    folder.checkpoint.unlink()
    (folder.path / "metrics.csv").unlink()
    run(compose(words))
    assert "no checkpoint has them" in caplog.text
