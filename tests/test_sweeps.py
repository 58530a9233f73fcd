"""Sweep files: what they claim is what they do; typed words win; a small one runs."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest

from dstrun.cli.help import text
from dstrun.config import composition, grid
from dstrun.config.composition import _hydra_compose, compose, compose_sweep, expand, hydra_open, of_hydra
from dstrun.config.experiment import Experiment
from dstrun.config.override import parse
from dstrun.record.folder import label, run_id
from dstrun.system.trouble import ConfigError

FILES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "sweeps").glob("*.yaml"))}
NETWORKS, DATA = ("resnet56", "vgg16_small", "vit"), ("cifar10", "cifar100")


@lru_cache
def runs_of(name: str, *typed: str) -> list[Experiment]:
    return compose_sweep(typed, name=name)


def words_of(name: str, *typed: str) -> list[list[str]]:
    with hydra_open():
        file = _hydra_compose(of_hydra(typed), name).hydra.sweeper
        return expand(parse(typed), file.params, file.grids)


def points(experiments: list[Experiment], *keys: str) -> set[tuple]:
    """Return the values of some keys in every run; a group is its option."""

    def value(run: Experiment, key: str):
        if key in run.choices:
            return run.choices[key]
        group, _, leaf = key.partition(".")
        return run.config[group][leaf] if leaf else run.config[group]

    return {tuple(value(run, key) for key in keys) for run in experiments}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_studies_and_how_many_runs_it_has(name: str) -> None:
    lines = FILES[name].read_text().splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    runs = runs_of(name)
    assert re.search(r"(19|20)\d\d", lines[0])
    assert f"{name} {lines[0].removeprefix('# ')}" in " ".join(text().split())
    assert int(re.fullmatch(r"# (\d+) runs, [\d.e]+ FLOPs .*", lines[1])[1]) == len(runs)
    assert len({run_id(x.config, x.choices) for x in runs}) == len(runs)
    assert {x.config["experiment"] for x in runs} == {name}
    assert {x.config["seed"] for x in runs} == {0, 1, 2}
    assert [sum(x.config["seed"] == seed for x in runs) for seed in range(3)] == [len(runs) / 3] * 3
    smaller = re.search(rf"Smaller: dstrun -cn {name} ([^,;]+=[^ ;]+)", comment)
    assert smaller
    assert 1 <= len(words_of(name, *re.findall(r"\S+=\S*[^\s,;]", smaller[0]))) < len(runs)


@pytest.mark.parametrize("name", FILES)
def test_runs_of_a_sweep_are_those_that_hydra_composes_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharing what options compose to changes no run."""
    file, words = runs_of(name), words_of(name)
    monkeypatch.setattr(composition, "SHIPPED", {})
    for at in range(0, len(file), max(1, len(file) // 4)):
        alone = compose(words[at], name=name)
        assert (alone.config, alone.choices) == (file[at].config, file[at].choices)


def test_a_file_leaves_no_trace_in_what_is_composed_next() -> None:
    """In one process, as of the Python API: the same words with a sweep file, and with none."""
    composed = [compose(["model=mlp", "seed=1"], name=name).config["experiment"] for name in ("accuracy", "config")]
    assert composed == ["accuracy", "default"]


def test_accuracy_has_every_method_at_every_sparsity_trained_alike() -> None:
    runs = runs_of("accuracy")
    sparse = ("static", "set", "rigl", "gse", "snip", "grasp", "synflow", "gmp", "lth")
    methods = [("dense", 0.0), *product(sparse, (0.9, 0.95, 0.98))]
    assert points(runs, "model", "dataset", "method", "sparsity") == {
        (*where, *what) for where in product(NETWORKS, DATA) for what in methods
    }
    keys = ("epochs", "batch_size", "optimizer.weight_decay", "optimizer.momentum", "optimizer.nesterov")
    assert points(runs, *keys) == {(200, 128, 0.0001, 0.9, False)}
    assert points(runs, "model", "optimizer.lr") == {("resnet56", 0.1), ("vgg16_small", 0.1), ("vit", 0.01)}
    for x in runs:
        assert x.build("optimizer").lr_at(31200, 78000) == pytest.approx(0.1 * x.config["optimizer"]["lr"])
    dynamic = [x for x in runs if x.choices["method"] in ("set", "rigl", "gse")]
    assert all(x.build("schedule").steps(78000) == list(range(1000, 46001, 1000)) for x in dynamic)
    assert points(dynamic, "allocation", "schedule", "schedule.fraction") == {("er_fan_out", "cosine", 0.2)}
    gradual = [x for x in runs if x.choices["method"] == "gmp"]
    assert points(gradual, "scope", "allocation") == {("global", None)}


def test_allocation_compares_two_and_shares_its_er_runs_with_accuracy() -> None:
    runs = runs_of("allocation")
    assert points(runs, "model", "dataset", "sparsity", "method", "allocation") == set(
        product(NETWORKS, DATA, (0.9, 0.95, 0.98), ("set", "rigl", "gse"), ("er_fan_out", "uniform_all"))
    )
    shared = {run_id(x.config, x.choices) for x in runs if x.choices["allocation"] == "er_fan_out"}
    assert len(shared) == len(runs) / 2
    assert shared < {run_id(x.config, x.choices) for x in runs_of("accuracy")}


def test_subset_has_every_distribution_at_every_size_and_rigl_once() -> None:
    runs = runs_of("subset")
    drawn = [x for x in runs if x.choices["method"] == "gse"]
    sizes = (0.25, 0.5, 1, 2)
    assert points(drawn, "model", "subset", "grow.gamma") == set(
        product(NETWORKS, ("uniform", "grabo", "graest"), sizes)
    )
    assert len(drawn) == 36 * 3
    assert {(label(x.choices), x.choices["grow"]) for x in runs if x not in drawn} == {("rigl", "gradient")}
    assert points(runs, "allocation", "schedule.fraction", "schedule.recipe_interval_steps") == {
        ("er_fan_out", 0.2, 1000)
    }


def test_width_keeps_the_active_connections() -> None:
    """The sparsities of the file, against networks that are counted."""
    from dstrun.run.blueprint import Blueprint

    active: dict[str, set[int]] = {}
    for run in runs_of("width", "seed=0"):
        if run.choices["method"] == "gse" or run.config["model"]["width"] == 1:
            active.setdefault(run.choices["model"], set()).add(sum(Blueprint(run).counts))
    assert active == {"resnet56": {854_704}, "vgg16_small": {1_298_608}, "vit": {4_270_080}}
    sparse = [x for x in runs_of("width") if x.choices["method"] == "gse"]
    assert points(sparse, "model", "model.width") == set(product(NETWORKS, (2, 3, 4)))


def test_extended_stretches_what_the_paper_trains() -> None:
    assert points(runs_of("extended"), "model", "method", "sparsity", "epochs") == set(
        product(NETWORKS, ("gse",), (0.98,), (200, 300, 400))
    )


def test_memory_has_each_technique_alone_and_all_together() -> None:
    plain = {"precision": "fp32", "weights": "fp32", "activations": "full", "checkpointing": "none", "microbatch": None}
    runs = [x.config | {"method": x.choices["method"]} for x in runs_of("memory") if x.choices["model"] == "wideresnet"]
    changed = [{key: x[key] for key in plain if x[key] != plain[key]} for x in runs]
    alone = [
        next(iter(c.items())) for x, c in zip(runs, changed, strict=True) if x["method"] == "dense" and len(c) == 1
    ]
    assert {key for key, _ in alone} == plain.keys()
    assert {} in [c for x, c in zip(runs, changed, strict=True) if x["method"] == "dense"]
    together = [c for x, c in zip(runs, changed, strict=True) if x["method"] == "gse" and x["state"] == "int8"]
    assert {c["microbatch"] for c in together} == {10, 5, 1}
    assert all(c.keys() == plain.keys() - {"precision"} for c in together)


def test_flops_differ_in_growth_sparsity_and_interval_alone() -> None:
    runs = runs_of("flops")
    keys = ("method", "sparsity", "schedule.recipe_interval_steps")
    assert points(runs, *keys) == set(product(("rigl", "gse"), (0.8, 0.9, 0.95, 0.98, 0.99), (100, 300, 1000)))
    kept = {"grow", "subset"}
    rest = [{**x.config, **dict.fromkeys(kept)} for x in runs]
    for run in rest:
        run["sparsity"], run["seed"], run["schedule"] = 0, 0, {**run["schedule"], "recipe_interval_steps": 0}
    assert all(run == rest[0] for run in rest)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["seed=0"], 168),
        (["seed=3,4"], 336),
        (["method=gse"], 54),
        (["method=dense,gse", "sparsity=0.8"], 36),
        (["seed=0", "method=gmp"], 18),
        (["hydra.sweeper.params.seed=7"], 168),
        (["dataset=digits", "dataset.limit=100", "model=mlp", "epochs=1,2", "method=set"], 18),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_typed_words_win_over_a_file(words: list[str], left: int) -> None:
    assert len(words_of("accuracy", *words)) == left


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["method=rigle"], "method=rigle is not in any grid of this sweep, which has method=dense"),
        (
            ["method=dense", "method=snip", "hydra.sweeper.grids=[{method: set}]"],
            "method=snip is not in any",
        ),
        (["seed=x"], "seed=x must be a whole number"),
        (["sparsty=0.9"], "sparsty is not a setting here (did you mean sparsity?)"),
        (["sparsity=1.5"], "sparsity=1.5 must be in [0, 1)"),
        (["seed=interval(0,1)"], "seed=interval(0,1) is infinite: list its values"),
        (["seed=range(0,1000000000)"], "seed=range(0,1000000000) lists more than 100,000 values"),
        (["seed=shuffle(range(0,1000000000))"], "lists more than 100,000 values"),
        (["sparsity=range(0,1,1e-12)"], "lists more than 100,000 values"),
        (["seed=range(0,1000)", "batch_size=range(1,1000)"], "a sweep has at most 100,000 runs, and this one has more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_with_a_file_are_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as error:
        runs_of("accuracy", *words)
    assert "\n" not in str(error.value)


def test_grids_by_hand() -> None:
    params = {"seed": ["seed=0", "seed=1"], "sparsity": ["sparsity=0.9"]}
    grids = [
        {"method": ["method=dense"], "sparsity": ["sparsity=0"]},
        {"method": ["method=a", "method=b"], "k": ["k=1"]},
    ]
    assert grid.runs({}, {}, []) == [[]]
    assert grid.runs({"seed": ["seed=5"]}, params, []) == [["seed=5", "sparsity=0.9"]]
    assert grid.runs({"seed": ["seed=5"], "sparsity": ["sparsity=0.5"]}, params, grids) == [
        ["seed=5", "sparsity=0", "method=dense"],
        ["seed=5", "sparsity=0.5", "method=a", "k=1"],
        ["seed=5", "sparsity=0.5", "method=b", "k=1"],
    ]
    assert grid.runs({"method": ["method=b"], "new": ["new=1"]}, params, grids) == [
        [f"seed={seed}", "sparsity=0.9", "new=1", "method=b", "k=1"] for seed in (0, 1)
    ]
    with pytest.raises(ConfigError, match="method=c is not in any grid"):
        grid.runs({"method": ["method=b", "method=c"]}, params, grids)
    with pytest.raises(ConfigError, match="k=1 m=1 leaves no run"):
        grid.runs({"k": ["k=1"], "m": ["m=1"]}, {}, [{"k": ["k=1"], "m": ["m=2"]}, {"k": ["k=2"], "m": ["m=1"]}])


def test_a_shipped_file_runs_small(dstrun, tmp_path: Path) -> None:
    words = ["model=mlp", "dataset=digits", "epochs=5", "grow.gamma=1", "seed=0", "wandb=disabled", "threads=1"]
    done = dstrun("-cn", "subset", *words, "sparsity=0.8", "schedule.updates=4")
    assert "4 of 4 runs done" in done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/subset/*/record.json")]
    assert sorted(r["label"] for r in records) == ["gse", "gse-grabo", "gse-graest", "rigl"]
    assert all(r["updates"] > 0 for r in records)
    table = dstrun("table", "results/subset").stdout
    assert all(f"| {name}" in table for name in ("rigl", "gse-grabo", "gse-graest"))


MINE = """
defaults: [config, _self_]
experiment: mine
hydra:
  mode: MULTIRUN
  sweeper:
    params: {seed: "0,1", model: mlp, dataset: digits, epochs: 1, wandb: disabled}
    grids: [{method: dense}, {method: set, sparsity: "0.5,0.8"}]
"""


def test_a_users_own_file_runs_and_is_planned(dstrun, tmp_path: Path) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "mine.yaml").write_text(MINE)
    done = dstrun("--config-dir", "my", "-cn", "mine", "seed=0")
    assert "3 of 3 runs done" in done.stderr
    assert len(list(tmp_path.glob("results/mine/*/record.json"))) == 3
    planned = json.loads(dstrun("plan", "--config-dir", "my", "-cn", "mine", "--format", "json").stdout)
    assert [(row["model"], row["runs"]) for row in planned] == [("mlp", 6), ("all", 6)]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/mine/*/record.json")]
    assert planned[-1]["flops"] == 2 * sum(r["flops"]["train"] for r in records)
    each = json.loads(dstrun("plan", "--config-dir", "my", "-cn", "mine", "--runs", "--format", "json").stdout)
    assert [(row["method"], row["sparsity"], row["runs"]) for row in each] == [
        ("dense", "", 2), ("set", "0.5", 2), ("set", "0.8", 2),
    ]  # fmt: skip
    trained = {(r["label"], r["config"]["sparsity"]): r["flops"] for r in records}
    for row in each:
        flops = trained[row["method"], float(row["sparsity"] or 0)]
        assert [row[key] for key in ("train", "train_x_dense", "inference_x_dense")] == [
            flops[key] for key in ("train", "train_x_dense", "inference_x_dense")
        ]
    assert "name its file with -cn" in dstrun("plan", "model=mlp", "--runs", check=False).stderr
    wrong = dstrun("--config-dir", "my", "-cn", "min", check=False)
    assert wrong.returncode == 2
    assert "-cn min is not known: choose accuracy, " in wrong.stderr
    assert "mine (did you mean mine?)" in wrong.stderr
