"""Protocols compose, over every method, to what docs/protocols.md says of them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import yaml

from dstrun.cli.help import options, text
from dstrun.config import composition
from dstrun.config.composition import compose_sweep
from dstrun.config.experiment import Experiment
from dstrun.system.trouble import ConfigError

CONF = Path(__file__).parents[2] / "conf"
PROTOCOLS = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))

HEDDES = {
    "epochs": 200, "batch_size": 128, "label_smoothing": 0.0, "optimizer.lr": 0.1, "optimizer.momentum": 0.9,
    "optimizer.nesterov": False, "optimizer.weight_decay": 1e-4, "optimizer.decay": "all",
    "optimizer.lr_schedule": "multistep", "optimizer.lr_milestones": [0.4, 0.6], "optimizer.lr_drop": 0.1,
    "optimizer.lr_warmup": 0.0,
}  # fmt: skip
DYNAMIC = HEDDES | {
    "allocation.flatten": "fan_out", "allocation.dense_first": False, "scope": "global", "prune": "magnitude",
    "schedule": "cosine", "schedule.fraction": 0.2, "schedule.begin": 0.0, "schedule.end": 0.6,
    "schedule.final_fraction": 0.0, "schedule.recipe_interval_steps": 1000, "schedule.recipe_steps": 78000,
    "method.batch": "fresh", "method.samples_per_class": 10, "method.rounding": "floor",
}  # fmt: skip
DENSE_START = HEDDES | {"initialization": "fan_in", "scope": "global", "allocation": None}
EVCI = HEDDES | {
    "epochs": 250, "optimizer.nesterov": True, "optimizer.weight_decay": 5e-4, "optimizer.decay": "weights",
    "optimizer.lr_milestones": [0.3072, 0.6144, 0.9216], "optimizer.lr_drop": 0.2, "scope": "layer",
}  # fmt: skip
EVCI_DYNAMIC = EVCI | {
    "allocation": "erk", "allocation.dense_first": True, "schedule": "cosine", "schedule.fraction": 0.3,
    "schedule.start": "begin", "schedule.begin": 0.0, "schedule.end": 0.768, "schedule.recipe_interval_steps": 100,
    "schedule.recipe_steps": 97656, "method.batch": "fresh", "method.samples_per_class": None,
    "method.rounding": "floor", "grow.regrow": True,
}  # fmt: skip
COMPOSED = {
    "heddes2024 gse": DYNAMIC | {"grow": "gse", "grow.gamma": 1.0, "grow.sampling": "single", "subset": "uniform",
                                 "optimizer.lr_warmup": 0.025},
    "heddes2024 set": DYNAMIC | {"grow": "random", "grow.regrow": False},
    "heddes2024 rigl": DYNAMIC | {"grow": "gradient", "grow.regrow": False},
    "heddes2024 static": HEDDES | {"allocation.flatten": "fan_out", "schedule": None},
    "heddes2024 dense": HEDDES | {"initialization": "network"},
    "heddes2024 snip": DENSE_START | {"method.samples_per_class": 10, "method.statistics": "batch"},
    "heddes2024 grasp": DENSE_START | {"method.samples_per_class": 10, "method.xavier": False,
                                       "method.temperature": 200.0},
    "heddes2024 synflow": DENSE_START | {"method.rounds": 100},
    "heddes2024 gmp": DENSE_START | {"schedule": "cosine", "schedule.fraction": 1.0, "schedule.begin": 0.0,
                                     "schedule.end": 0.6, "schedule.recipe_interval_steps": 1000},
    "heddes2024 lth": DENSE_START | {"method.rewind": 0.0, "method.sparsities": [0.5, 0.75, 0.9, 0.95, 0.98],
                                     "method.levels": None},
    "evci2020 rigl": EVCI_DYNAMIC | {"grow": "gradient"},
    "evci2020 set": EVCI_DYNAMIC | {"grow": "random"},
    "evci2020 static": EVCI | {"allocation": "erk", "allocation.dense_first": True},
    "evci2020 gmp": EVCI | {"allocation": "uniform", "allocation.dense_first": True, "schedule": "cubic",
                            "schedule.begin": 0.2048, "schedule.end": 0.768, "schedule.fraction": 1.0},
}  # fmt: skip


def value(run: Experiment, key: str):
    group, _, leaf = key.partition(".")
    if leaf:
        return run.config[group][leaf]
    return run.choices[key] if key in run.choices else run.config[key]


def compose(protocol: str, method: str, *words: str) -> Experiment:
    sparsity = () if method in ("dense", "str", "autosparse", "sss") else ("sparsity=0.9",)
    return composition.compose([f"protocol={protocol}", f"method={method}", *sparsity, *words])


@pytest.mark.parametrize("case", COMPOSED)
def test_composes_to_what_the_authors_trained(case: str) -> None:
    run = compose(*case.split())
    assert {key: value(run, key) for key in COMPOSED[case]} == COMPOSED[case]


@pytest.mark.parametrize(
    ("protocol", "method"), [*product(["heddes2024"], options("method")), *product(PROTOCOLS, ["dst", "topkast"])]
)
def test_trains_every_method_by_its_base(protocol: str, method: str) -> None:
    run, said = compose(protocol, method), yaml.safe_load((CONF / "protocol" / f"{protocol}.yaml").read_text())
    assert run.config["epochs"] == said["epochs"]
    warm = (protocol, method) == ("heddes2024", "gse")
    assert run.config["optimizer"].items() >= (said["recipe"]["sgd"] | ({"lr_warmup": 0.025} if warm else {})).items()


@pytest.mark.parametrize("method", ["rigl", "set", "static", "gmp", "dense"])
def test_evci2020_on_imagenet_keeps_the_recipe(method: str) -> None:
    run, preset = (
        compose("evci2020", method, "dataset=imagenet"),
        composition.compose([f"method={method}", "dataset=imagenet"]),
    )
    assert run.config["optimizer"] == preset.config["optimizer"] | {"decay": "weights"}
    assert run.config["epochs"] == preset.config["epochs"] == 100
    if method in ("rigl", "set"):
        assert run.build("schedule").steps(32000) == list(range(1, 25001, 100))
        assert (value(run, "method.batch"), value(run, "method.samples_per_class")) == ("fresh", None)


def test_protocols_are_in_the_help() -> None:
    assert f"  {' '.join(PROTOCOLS)}" in text().splitlines()


def test_updates_of_rigl_come_before_the_first_step() -> None:
    steps = compose("evci2020", "rigl").build("schedule").steps(97656)
    assert (steps[0], steps[1], steps[-1]) == (1, 101, 74901)


def test_the_words_of_a_user_win_and_the_vit_keeps_its_rate() -> None:
    run = compose("heddes2024", "rigl", "model=vit", "allocation=erk", "scope=layer", "optimizer.weight_decay=0")
    expected = {"allocation": "erk", "scope": "layer", "optimizer.weight_decay": 0.0, "optimizer.lr": 0.01}
    assert {key: value(run, key) for key in expected} == expected


def test_the_command_names_the_file_and_composes_to_the_same() -> None:
    run = compose("heddes2024", "rigl")
    assert run.command == ("protocol=heddes2024/rigl", "method=rigl", "sparsity=0.9")
    assert composition.compose(list(run.command)).config == run.config


def test_a_sweep_finds_the_file_of_each_method() -> None:
    runs = compose_sweep(["protocol=heddes2024", "method=set,gse", "sparsity=0.9"])
    assert [value(run, "optimizer.lr_warmup") for run in runs] == [0.0, 0.025]
    assert {value(run, "scope") for run in runs} == {"global"}


@pytest.mark.parametrize("name", ["heddes", "heddes2024/nope"])
def test_an_unknown_protocol_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"protocol={name} is not known: choose evci2020, heddes2024"):
        composition.compose([f"protocol={name}"])


@pytest.mark.parametrize("method", options("method"))
def test_an_optimizer_keeps_its_own_values_under_every_preset(method: str) -> None:
    """Also on ImageNet, where presets bring rates of large batches; and the ViT keeps its rate under SGD."""
    run = composition.compose([f"method={method}", "dataset=imagenet", "model=vit", "optimizer=adamw"])
    assert (value(run, "optimizer.lr"), value(run, "optimizer.weight_decay")) == (0.001, 0.01)
    sgd = composition.compose([f"method={method}", "dataset=imagenet", "model=vit"])
    assert value(sgd, "optimizer.lr") == 0.01


def test_what_presets_say_for_an_optimizer_it_has() -> None:
    for path in [
        *(CONF / "method").glob("*.yaml"),
        *(CONF / "recipe").glob("*.yaml"),
        *(CONF / "protocol").rglob("*.yaml"),
    ]:
        said = yaml.safe_load(path.read_text()) or {}
        assert "optimizer" not in said, path
        for name, values in said.get("recipe", {}).items():
            assert values.keys() <= yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text()).keys(), path


def test_a_value_for_an_optimizer_that_it_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    text = (CONF / "method" / "static.yaml").read_text() + "recipe: {sgd: {learning_rate: 0.3}}\n"
    (tmp_path / "method" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"recipe.sgd.learning_rate is not a setting of this optimizer"):
        composition.compose(["method=mine"], [str(tmp_path)])
