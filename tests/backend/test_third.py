"""A backend is a folder: what is asked of it, its traits answer; nothing else knows its name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import pytest

from dstrun.cli.verb import VERBS

MAIN = Path(__file__).with_name("third") / "main.py"
FEW = [
    *("model=mlp", "model.width=0.2", "dataset=digits", "dataset.limit=320", "epochs=1", "sparsity=0.9"),
    *("threads=1", "wandb=disabled", "device=cpu", "batch_size=16"),
]
TWICE = "schedule.updates=2"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line with the backends ``held`` and ``listed``, in an empty folder."""
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        start = subprocess.run if words[0] in {*VERBS} - {"plan"} else fork_server.run
        return start([sys.executable, str(MAIN), *words], cwd=tmp_path, capture_output=True, text=True)

    return run


def record(folder: Path, *, results: str = "results") -> dict[str, Any]:
    (path,) = folder.glob(f"{results}/**/record.json")
    return json.loads(path.read_text())


def test_it_is_named_like_any_other(third: Run) -> None:
    assert third("backend=liste").stderr == (
        "dstrun: backend=liste is not known: choose held, listed, masked, sparse, auto (did you mean listed?)\n"
    )
    text = " ".join(third("help", "settings").stdout.split())
    said = (
        "held and masked simulate sparsity on dense storage, listed and sparse store active weights alone, auto mixes"
    )
    assert f"{said} both; held|listed|" in text
    rows = json.loads(third("methods", "--format", "json").stdout)
    assert {row["backend"] for row in rows} == {"any", "held, masked"}


def test_what_needs_dense_storage_is_refused_by_the_trait(third: Run) -> None:
    said = third(*FEW, "method=gmp", "backend=listed").stderr
    assert said == "dstrun: backend=listed makes no sense with method=gmp, which starts dense\n"
    said = third(*FEW, "method=static", "powerprop=2", "backend=listed").stderr
    assert said == "dstrun: powerprop=2 makes no sense with backend=listed: it needs dense storage\n"


def test_what_it_lacks_is_said_before_training(third: Run, tmp_path: Path) -> None:
    done = third(*FEW, "model=resnet20", "method=static", "backend=listed")
    assert done.stderr.splitlines()[-1].startswith("dstrun: backend=listed stores linear layers alone, and conv1 is")
    assert done.returncode == 2
    assert not [*tmp_path.glob("results/**/record.json")]


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_run_trains_on_it_as_on_any(method: str, third: Run, tmp_path: Path) -> None:
    done = third(*FEW, TWICE, f"method={method}", "backend=listed")
    assert done.returncode == 0, done.stderr
    assert "backend listed (lists of connections)" in done.stderr
    found = record(tmp_path)
    assert set(found["backends"].values()) == {"listed"}
    assert found["updates"] == 2
    masked = third(*FEW, TWICE, f"method={method}", "backend=masked", "results=masked")
    assert masked.returncode == 0, masked.stderr
    other = record(tmp_path, results="masked")
    assert found["accuracy"]["top1"] == pytest.approx(other["accuracy"]["top1"], abs=1)
    assert found["flops"]["train"] == other["flops"]["train"]
    assert found["flops"]["executed_train"] < 0.5 * other["flops"]["executed_train"]


@pytest.mark.parametrize("name", ["held", "listed"])
def test_a_plan_counts_by_the_trait(name: str, third: Run, tmp_path: Path) -> None:
    plan = third("plan", *FEW, "method=static", f"backend={name}", "--format", "json")
    assert plan.returncode == 0, plan.stderr
    flops = json.loads(plan.stdout)["flops"]
    assert flops["executed_x_dense"] < 0.5
    assert json.loads(plan.stdout)["memory"]["peak_bytes"] is not None
    done = third(*FEW, "method=static", f"backend={name}")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path)["flops"]["executed_train"] == flops["executed_train"]


def test_dense_storage_of_another_kind_has_what_needs_it(third: Run, tmp_path: Path) -> None:
    done = third(*FEW, "method=gmp", "powerprop=2", "backend=held")
    assert done.returncode == 0, done.stderr
    assert set(record(tmp_path)["backends"].values()) == {"held"}


def test_auto_measures_it_beside_the_others(third: Run, tmp_path: Path) -> None:
    done = third(*FEW, "method=static", "backend=auto")
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "cache" / "backend.json").read_text())
    (entry,) = measured.values()
    assert entry["seconds"].keys() - {"mixed"} == {"held", "listed", "masked", "sparse"}
    assert "nothing is compiled" in done.stderr
    for name in ("listed", "held"):  # so fast that auto takes it
        seconds = dict.fromkeys(entry["seconds"], 1.0) | {name: 0.5}
        (tmp_path / "cache" / "backend.json").write_text(
            json.dumps(dict.fromkeys(measured, entry | {"seconds": seconds}))
        )
        done = third(*FEW, "method=static", "backend=auto", f"experiment={name}", f"results={name}")
        assert done.returncode == 0, done.stderr
        assert set(record(tmp_path, results=name)["backends"].values()) == {name}
