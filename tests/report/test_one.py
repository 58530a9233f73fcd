"""``dstrun show`` and ``dstrun diff``: a run by a few letters, and what sets two apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dstrun.cli.main import main
from dstrun.report import load, one

METHODS = Path(__file__).parents[2] / "results" / "published" / "vgg16_small-20"
GSE, RIGL = (next(METHODS.glob(f"*-{name}-*seed0-*")) for name in ("gse", "rigl"))


def test_a_run_is_shown_by_its_words_settings_numbers_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(GSE)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    record = json.loads((GSE / "record.json").read_text())
    assert lines[0] == f"id {record['id']}"
    assert "state done" in lines
    assert any(line.startswith("command dstrun protocol=heddes2024/gse model=vgg16_small ") for line in lines)
    assert "epochs 20" in lines
    assert "grow gse" in lines
    assert f"top-1 {record['accuracy']['top1']:.2f} %" in lines
    assert any(line.startswith("metrics.csv") for line in lines)
    assert not [line for line in lines if line.startswith("grow.gamma")]  # it is the default


def test_show_as_json_has_raw_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(GSE), "--format", "json"]) == 0
    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    assert rows["flops.train"] == json.loads((GSE / "record.json").read_text())["flops"]["train"]


def test_two_runs_differ_in_what_is_shown_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(GSE), str(RIGL), "--format", "json"]) == 0
    rows = {(row["part"], row["key"]): (row["a"], row["b"]) for row in json.loads(capsys.readouterr().out)}
    assert rows["words", "method"] == ("gse", "rigl")
    assert rows["settings", "grow"] == ("gse", "gradient")
    assert rows["settings", "grow.gamma"] == (1.0, None)
    assert ("words", "model") not in rows
    assert ("settings", "sparsity") not in rows
    assert all(a != b for a, b in rows.values())


def test_a_run_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(GSE), str(GSE)]) == 0
    assert "nothing differs" in capsys.readouterr().err


def test_a_run_is_found_by_the_beginning_of_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(METHODS.parent, target_is_directory=True)
    assert main(["show", GSE.name[:-4]]) == 0
    assert main(["show", "vgg16_small-cifar10"]) == 2
    assert "may be any of" in capsys.readouterr().err
    assert main(["diff", GSE.name, "nothing"]) == 2


def test_a_run_that_is_not_done_is_shown_with_the_words_that_make_it(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from dstrun.config.composition import compose
    from dstrun.record.folder import RunFolder
    from dstrun.record.writer import signed

    said = ["model=mlp", "dataset=digits", "method=gse", "seed=3", "optimizer.lr=0.02", "schedule=constant"]
    made = compose([*said, f"results={tmp_path}"])
    folder = RunFolder(made.config, made.choices)
    folder.path.mkdir(parents=True)
    (folder.path / "config.yaml").write_text(signed(OmegaConf.to_yaml({"choices": made.choices, **made.config})))
    folder.status(state="interrupted", epoch=3, epochs=10, top1=50.5, message="SIGTERM at step 9 of 30")
    run = load.read(folder.path, {"config.yaml", "status.json"})
    assert set(one.words(run)) == set(said)
    assert one.state(run, 0.0) == "interrupted, epoch 3 of 10, top-1 50.50 %, SIGTERM at step 9 of 30"
