"""A search is told accuracies on validation images, and nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from dstrun.cli import start
from dstrun.launcher.task import Ending
from dstrun.system.trouble import ConfigError

WORDS = ["model=mlp", "dataset=digits", "wandb=disabled", "epochs=1"]
SEARCH = [*WORDS, "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.5)"]
MAXIMIZE = "hydra.sweeper.direction=maximize"
INSTALLED = find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
needs_optuna = pytest.mark.skipif(not INSTALLED, reason="hydra-optuna-sweeper is not installed")


def ending(state: str, **values) -> Ending:
    return Ending("id", state, "", Path("id"), Path("id/log.txt"), **values)


def test_a_search_is_told_validation_accuracy() -> None:
    assert float(ending("done", top1=71.5, split="validation")) == 71.5
    for other in (ending("done", top1=71.5, split="test"), ending("diverged"), ending("lost")):
        with pytest.raises(ValueError, match="has no accuracy on validation images"):
            float(other)
    with pytest.raises(KeyboardInterrupt):
        float(ending("interrupted"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS, "hydra/sweeper=ax"], "hydra/sweeper=ax is not known: choose grids, .* or optuna"),
        ([*WORDS, "hydra/launcher=joblib"], "hydra/launcher=joblib is not supported: hydra.launcher.workers=N"),
        pytest.param(SEARCH, "needs hydra.sweeper.direction=maximize", marks=needs_optuna),
        pytest.param([*SEARCH, "hydra.sweeper.direction=minimize"], "direction=maximize", marks=needs_optuna),
        pytest.param([*SEARCH, MAXIMIZE], "set dataset.validation=N", marks=needs_optuna),
    ],
)
def test_what_would_choose_wrongly_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        start.sweep(words, [], "config")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(INSTALLED, reason="hydra-optuna-sweeper is installed")
def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="pip install hydra-optuna-sweeper"):
        start.sweep([*SEARCH, MAXIMIZE], [], "config")


def test_a_file_names_no_sweeper(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {_target_: hydra_plugins.other.Sweeper}}\n"
    )
    with pytest.raises(ConfigError, match=r"hydra/sweeper is hydra_plugins\.other\.Sweeper in a file"):
        start.sweep([*WORDS], [str(tmp_path)], "mine")


@needs_optuna
def test_optuna_finds_the_best_by_validation(dstrun, tmp_path: Path) -> None:
    more = [
        "dataset.validation=200",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1",
        "hydra/sweeper/sampler=random",
    ]
    done = dstrun("-m", *SEARCH, MAXIMIZE, *more, "threads=1")
    assert "the best is in results/default/optimization_results.yaml" in done.stderr
    found = yaml.safe_load((tmp_path / "results/default/optimization_results.yaml").read_text())
    from dstrun.report.load import runs

    trials = {run.get("config.optimizer.lr"): run for run in runs(tmp_path / "results")}
    assert len(trials) == 3
    best = max(trials.values(), key=lambda run: run.top1 or 0)
    assert found["best_value"] == best.top1
    assert found["best_params"]["optimizer.lr"] == pytest.approx(best.get("config.optimizer.lr"))
    assert {run.get("accuracy.split") for run in trials.values()} == {"validation"}
