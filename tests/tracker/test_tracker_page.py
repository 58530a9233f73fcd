from __future__ import annotations

from typing import Any

import pytest

from dstrun.config.composition import compose
from dstrun.record.folder import run_id
from dstrun.tracker import page

CHOICES = {"model": "mlp", "dataset": "digits", "method": "dst", "grow": "gse", "subset": "grabo", "allocation": None}
ROW = {"epoch": 1, "step": 11, "train_loss": 0.7, "loss": 0.5, "top1": 80.0, "peak_bytes": None, "split": "test"}
RECORD: dict[str, Any] = {
    "accuracy": {"top1": 90.0, "loss": 0.5, "split": "test"},
    "flops": {"train": 3, "inference": 2, "convention": "words"},
    "memory": {"peak_bytes": 9, "step_peak_bytes": 8, "update_peak_bytes": None, "at_peak": {"step": {"model": 4}}},
    "layers": [{"name": "fc1", "shape": "2x4", "connections": 8, "initial": 3, "active": 2, "explored": 0.5}],
}


def of(*words: str) -> page.Page:
    """Describe the run that words make."""
    found = compose(["model=mlp", "dataset=digits", *words])
    return page.page(run_id(found.config, found.choices), found.config, found.choices)


def test_seeds_of_a_configuration_share_a_group_and_unlike_runs_never_do() -> None:
    first = of()
    assert of("seed=12").group == of("threads=1", "wandb=offline", "tracker=[wandb,tensorboard]").group == first.group
    assert first.group.startswith("mlp-digits-gse-s0.9-")
    unlike = ["optimizer.lr=0.01", "epochs=400", "dataset.limit=200", "grow.gamma=2", "precision=bf16", "sparsity=0.91"]
    assert len({first.group, *(of(word).group for word in unlike)}) == 1 + len(unlike)


def test_the_user_may_name_the_group_and_add_tags() -> None:
    said = of("wandb.group=pilot", "wandb.tags=[lab,draft]")
    assert said.group == "pilot"
    assert said.tags == ["gse", "mlp", "digits", "er_fan_out", "masked", "lab", "draft"]


def test_runs_of_older_versions_keep_the_group_that_wandb_has_them_in() -> None:
    config = {"seed": 12, "backend": "masked", "wandb": "auto"}
    assert page.is_old(config)
    found = page.page("mlp-digits-gse-grabo-s0.9-seed12-3f9c2a1b", config, CHOICES)
    assert found.group == "mlp-digits-gse-grabo-s0.9"
    assert found.tags == ["gse-grabo", "mlp", "digits", "masked"]


def test_an_epoch_is_shown_with_the_densities_of_its_layers() -> None:
    shown = {"epoch": 1, "train/loss": 0.7, "density/fc1": 0.1}
    assert page.history(ROW, {"fc1": 0.1}) == shown | {"test/loss": 0.5, "test/top1": 80.0}
    assert page.history(ROW | {"split": "validation"}, {"fc1": 0.1}) == shown | {"val/loss": 0.5, "val/top1": 80.0}
    old = {"epoch": 1, "train_loss": 0.7, "loss": 0.5, "top1": 80.0, "peak_bytes": None, "density/fc1": 0.1}
    assert page.history(ROW, {"fc1": 0.1}, old=True) == old


def test_the_summary_says_how_a_run_ended_and_repeats_nothing() -> None:
    assert page.summary("lost", None) == page.summary("lost", None, old=True) == {"state": "lost"}
    assert page.summary("done", RECORD) == {
        "state": "done",
        "cost/inference": 2,
        "cost/convention": "words",
        "memory/step_peak": 8,
        "memory/at_peak/step/model": 4,
        "layers": page.Table([*page.LAYERS, "density"], [["fc1", "2x4", 8, 3, 2, 0.5, 0.25]]),
    }


@pytest.mark.parametrize("group", ["accuracy", "flops"])
def test_runs_of_older_versions_keep_the_keys_that_wandb_has_them_under(group: str) -> None:
    found = page.summary("done", {group: RECORD[group]}, old=True)
    assert found == {"state": "done"} | {f"{group}/{key}": value for key, value in RECORD[group].items()}
