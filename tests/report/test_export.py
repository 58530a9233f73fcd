"""The two files of ``dstrun export``, read back and held against what runs left."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_fixture import HEADER, record_of, write, write_status

from dstrun.cli.main import main
from dstrun.report import export, load
from dstrun.system import safe
from dstrun.system.trouble import ConfigError

NOW = 2000.0


def exported(root: Path, out: Path, form: str = "parquet") -> tuple[list[dict], list[dict]]:
    epochs, runs = export.export(load.runs(root), out, form, NOW)
    assert (epochs.name, runs.name) == (f"epochs.{form}", f"runs.{form}")
    if form == "parquet":
        return pq.read_table(epochs).to_pylist(), pq.read_table(runs).to_pylist()
    one, two = (list(csv.DictReader(file.read_text().splitlines())) for file in (epochs, runs))
    return one, two


def test_epochs_are_those_of_metrics_csv(results: Path, tmp_path: Path) -> None:
    epochs, _ = exported(results, tmp_path / "out")
    runs = load.runs(results)
    expected = [
        {
            "run": run.id, "folder": run.folder.as_posix(), "model": "resnet56", "dataset": "cifar10",
            "label": run.get("label"), "sparsity": run.get("config.sparsity"), "seed": run.seed,
        } | row
        for run in runs for row in load.metrics(run)
    ]  # fmt: skip
    assert len(expected) == 29 * 30
    assert epochs == expected


def test_columns_have_the_same_types_whatever_is_in_them(tmp_path: Path) -> None:
    """Whole numbers stay whole, nulls null; FLOPs beyond 2^63 fit; a run alone has the types of many."""
    record, beyond = record_of("dense", 0.0, 0, 90.0), 2**64
    record["memory"]["update_peak_bytes"] = record["seconds"]["update_median"] = None
    folder = write(tmp_path / "results", record)
    (folder / "metrics.csv").write_text(f"{HEADER}\n1,391,nan,1,90,99,1,31,{beyond},,odd,\n")
    epochs, runs = export.export(load.runs(tmp_path / "results"), tmp_path / "out", "parquet", NOW)
    found = pq.read_table(epochs)
    assert str(found.to_pylist()[0]["train_loss"]) == "nan"
    assert found.drop_columns(["run", "folder", "train_loss"]).to_pylist() == [
        {
            "model": "resnet56", "dataset": "cifar10", "label": "dense", "sparsity": 0.0, "seed": 0, "epoch": 1,
            "step": 391, "loss": 1.0, "top1": 90.0, "top5": 99.0, "lr": 1.0, "seconds": 31.0, "flops": 2.0**64,
            "peak_bytes": None, "resident_peak_bytes": None, "split": None,
        }
    ]  # fmt: skip
    real = {"sparsity", "train_loss", "loss", "top1", "top5", "lr", "seconds", "flops"}
    whole = {"seed", "epoch", "step", "peak_bytes", "resident_peak_bytes"}
    for field in found.schema:
        assert field.type == (
            pa.float64() if field.name in real else pa.int64() if field.name in whole else pa.string()
        )
    types = {field.name: field.type for field in pq.read_schema(runs)}
    for name, kind in {
        "sparsity": pa.float64(), "seed": pa.int64(), "accuracy.top1": pa.float64(), "flops.inference": pa.float64(),
        "memory.update_peak_bytes": pa.int64(), "seconds.update_median": pa.float64(), "updates": pa.int64(),
        "code.dirty": pa.bool_(), "choices.grow": pa.string(), "code.git_commit": pa.string(),
        "status.message": pa.string(), "status.epoch": pa.int64(),
    }.items():  # fmt: skip
        assert types[name] == kind, name
    assert not [name for name, kind in types.items() if pa.types.is_null(kind)]


def test_runs_have_a_row_each_with_all_that_is_known(results: Path, tmp_path: Path) -> None:
    stopped = write(results, record_of("gse", 0.9, 7, 50.0, optimizer="adamw"))
    record = json.loads((stopped / "record.json").read_text())
    (stopped / "record.json").unlink()
    (stopped / "status.json").write_text('{"id": "stopped", "state": "running", "heartbeat": 1.0, "epoch": 3}')
    (stopped / "config.yaml").write_text(json.dumps({"choices": record["choices"]} | record["config"]))
    listed = record_of("set", 0.9, 9, 90.0, lr_milestones=[0.4, 0.6], strict=True, power=1)
    write(results, listed | {"backends": {"layer1.0": "masked"}, "layers": [{"name": "layer1.0", "active": 5}]})
    _, rows = exported(results, tmp_path / "out")
    found = {row["run"]: row for row in rows}
    assert [row["folder"] for row in rows] == [run.folder.as_posix() for run in load.runs(results)]
    for run in load.runs(results):
        if run.record:
            row = found[run.id]
            assert (row["state"], row["accuracy.top1"], row["seed"]) == ("done", run.top1, run.seed)
            assert row["memory.update_peak_bytes"] == run.get("memory.update_peak_bytes")
            assert row["config.grow.gamma"] == run.get("config.grow.gamma")
    row = found[listed["id"]]
    assert json.loads(row["config.lr_milestones"]) == [0.4, 0.6]
    assert json.loads(row["backends"]) == {"layer1.0": "masked"}
    assert json.loads(row["layers"]) == [{"name": "layer1.0", "active": 5}]
    assert (row["config.strict"], row["config.power"]) == (True, 1)
    lost = found["stopped"]
    assert (lost["state"], lost["status.epoch"], lost["accuracy.top1"]) == ("lost", 3, None)
    assert [lost[key] for key in export.IDENTITY[2:]] == ["resnet56", "cifar10", "gse", 0.9, 7]
    assert (lost["choices.optimizer"], lost["config.batch_size"], lost["experiment"]) == ("adamw", 128, "default")
    failed = found["resnet56-cifar10-gse-s0.98-seed2-77aa01"]
    assert (failed["state"], failed["status.message"], failed["model"]) == ("failed", "out of memory", None)
    assert "config.threads" not in row  # null everywhere
    assert "config.grow" not in row  # null where there is none, else a group


def test_csv_says_the_same(results: Path, tmp_path: Path) -> None:
    readers = {bool: "true".__eq__, int: int, float: float, str: str, type(None): lambda word: word or None}
    for typed, words in zip(exported(results, tmp_path), exported(results, tmp_path, "csv"), strict=True):
        read = [
            {name: readers[type(value)](said[name]) for name, value in row.items()}
            for row, said in zip(typed, words, strict=True)
        ]
        assert read == typed
        assert list(words[0]) == list(typed[0])


def test_csv_holds_no_formula_and_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    record = record_of("set", 0.9, 0, 50.0, model="@x\x1b[31m") | {"label": "=1+1"}
    record["config"]["=k"] = record["config"]["+k\x1b"] = "+a"
    write(tmp_path, record, "run")
    said = "".join(file.read_text() for file in export.export(load.runs(tmp_path), tmp_path / "out", "csv", NOW))
    assert "\x1b" not in said
    assert "'=1+1" in said
    cells = [cell for row in csv.reader(said.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\t=1", "  =x"])
def test_csv_has_no_formula_and_parquet_what_was_left(text: str, tmp_path: Path) -> None:
    write(tmp_path / "results", record_of("rigl", 0.9, 0, 50.0) | {"label": text, text: "b"}, "default/a")
    write(tmp_path / "results", record_of("rigl", 0.9, 1, 50.0) | {"label": "-1.5e3", text: "b"}, "default/b")
    for rows in exported(tmp_path / "results", tmp_path / "out", "csv"):
        assert {row["label"] for row in rows} == {safe.cell(text), "-1.5e3"}  # a number is no formula
        assert not [name for name in rows[0] if name.startswith(safe.FORMULA)]
    for rows in exported(tmp_path / "results", tmp_path / "out"):
        assert {row["label"] for row in rows} == {text, "-1.5e3"}


def test_csv_has_each_text_in_its_row_where_some_run_has_none(tmp_path: Path) -> None:
    for seed, extra in enumerate(({}, {"said": "=1+1"}, {"said": "b"})):
        write(tmp_path / "results", record_of("rigl", 0.9, seed, 50.0) | extra)
    _, rows = exported(tmp_path / "results", tmp_path / "out", "csv")
    assert [row["said"] for row in rows] == ["", "'=1+1", "b"]


@pytest.mark.parametrize("form", export.FORMATS)
def test_the_same_bytes_every_time_in_batches_or_not(results: Path, tmp_path: Path, form: str, monkeypatch) -> None:
    one = export.export(load.runs(results), tmp_path / "one", form, NOW)
    two = export.export(load.runs(results), tmp_path / "two", form, NOW)
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    monkeypatch.setattr(export, "BATCH_ROWS", 100)  # the last batch is not full
    epochs, _ = export.export(load.runs(results), tmp_path / "three", form, NOW)
    if form == "csv":
        assert epochs.read_bytes() == one[0].read_bytes()
    else:
        assert pq.read_table(epochs) == pq.read_table(one[0])
        assert [pq.ParquetFile(file).num_row_groups for file in (one[0], epochs)] == [1, 8]


def test_runs_without_epochs_leave_an_empty_file_of_the_same_columns(tmp_path: Path) -> None:
    write_status(tmp_path / "results", "a", "failed")
    epochs, runs = exported(tmp_path / "results", tmp_path / "out")
    assert epochs == []
    assert pq.read_schema(tmp_path / "out" / "epochs.parquet") == export.epoch_schema()
    assert (runs[0]["run"], runs[0]["state"]) == ("a", "failed")


def test_what_fails_leaves_the_files_before(results: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    before = [file.read_bytes() for file in export.export(load.runs(results), out, "parquet", NOW)]

    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "BATCH_ROWS", 100)
    monkeypatch.setattr(export, "identity", press)
    with pytest.raises(KeyboardInterrupt):
        export.export(load.runs(results), out, "parquet", NOW)
    assert [file.read_bytes() for file in sorted(out.iterdir())] == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^--out .*file/x cannot be written: Not a directory$"):
        export.export([], tmp_path / "file" / "x", "csv", NOW)


def test_the_verb_counts_a_run_once_and_says_where(results: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "results", "results/default", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "results/export/epochs.csv\nresults/export/runs.csv\n"
    assert len((results / "export" / "runs.csv").read_text().splitlines()) == 1 + 30
    assert main(["export", "--out", "elsewhere"]) == 0  # its own files are no runs
    assert pq.read_metadata("elsewhere/runs.parquet").num_rows == 30
    (tmp_path / "empty").mkdir()
    assert main(["export", "empty"]) == 3
    assert main(["export", "--format", "json"]) == 2
    assert "choose parquet, csv" in capsys.readouterr().err


def test_needs_no_torch(results: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom dstrun.cli.main import main\n"
    code += f"main(['export', {str(results)!r}])"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=results.parent, capture_output=True)
    assert (results / "export" / "runs.parquet").exists()
