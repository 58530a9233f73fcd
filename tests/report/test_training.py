from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_fixture import write
from training_fixture import HEDDES, configured, heddes, record_as

from dstrun.report.load import Run
from dstrun.report.published import Reference, references
from dstrun.report.training import Training, compare, defaulted, same

ROOT = Path(__file__).parents[2]
PUBLISHED = references()
TOP1 = "accuracy.top1"


def best(run: Run, metric: str = TOP1) -> Reference:
    return PUBLISHED.find(run, metric)[0]


def differs(run: Run, metric: str = TOP1) -> tuple[str, ...]:
    return best(run, metric).training(run).differs


@pytest.mark.parametrize("label", HEDDES)
def test_a_run_trained_as_published_differs_in_nothing_and_leaves_nothing_open(label: str) -> None:
    run = heddes(label)
    found = best(run)
    assert found.source.startswith("Heddes")
    assert found.training(run) == Training()
    assert found.training(run).word == "same"
    assert str(found.footnote(run)) == f"{found.cite}; {found.note}"


@pytest.mark.parametrize(
    ("label", "key", "value", "said"),
    [
        ("set", "epochs", 30, "epochs=200 (ours 30)"),
        ("set", "batch_size", 64, "batch_size=128 (ours 64)"),
        ("set", "scope", "layer", "scope=global (ours layer)"),
        ("set", "schedule", "constant", "schedule=cosine (ours constant)"),
        ("set", "schedule.fraction", 0.3, "schedule.fraction=0.2 (ours 0.3)"),
        ("set", "schedule.interval_steps", 390, "schedule.interval_steps=1000 (ours 390)"),
        ("set", "schedule.end", 0.995, "schedule.end=0.6 (ours 0.995)"),
        ("set", "schedule.start", "begin", "schedule.start=interval (ours begin)"),
        ("set", "grow.regrow", True, "grow.regrow=false (ours true)"),
        ("rigl", "method.batch", "current", "method.batch=fresh (ours current)"),
        ("gse", "grow.sampling", "exact", "grow.sampling=single (ours exact)"),
        ("gse", "optimizer.lr_warmup", 0.0, "optimizer.lr_warmup=0.025 (ours 0)"),
        ("snip", "optimizer.lr", 0.05, "optimizer.lr=0.1 (ours 0.05)"),
        ("snip", "optimizer.momentum", 0.875, "optimizer.momentum=0.9 (ours 0.875)"),
        ("snip", "optimizer.nesterov", True, "optimizer.nesterov=false (ours true)"),
        ("snip", "optimizer.weight_decay", 5e-4, "optimizer.weight_decay=0.0001 (ours 0.0005)"),
        ("snip", "optimizer.decay", "weights", "optimizer.decay=all (ours weights)"),
        ("snip", "optimizer.lr_milestones", [0.5, 0.75], "optimizer.lr_milestones=[0.4,0.6] (ours [0.5,0.75])"),
        ("snip", "optimizer.lr_drop", 0.2, "optimizer.lr_drop=0.1 (ours 0.2)"),
        ("snip", "label_smoothing", 0.1, "label_smoothing=0 (ours 0.1)"),
        ("snip", "initialization", "network", "initialization=fan_in (ours network)"),
        ("static", "allocation", "er_fan_in", "allocation=er_fan_out (ours er_fan_in)"),
        ("static", "dataset.augment", False, "dataset.augment=true (ours false)"),
        ("static", "dataset.limit", 20000, "dataset.limit=null (ours 20000)"),
        ("lth", "method.sparsities", [0.5], "method.sparsities=[0.5,0.75,0.9,0.95,0.98] (ours [0.5])"),
    ],
)
def test_a_difference_is_named_and_keeps_the_row(label: str, key: str, value: Any, said: str) -> None:
    same_but = configured(heddes(label), key, value)
    found = best(same_but)
    assert found.training(same_but) == Training((said,))
    assert found.training(same_but).sign == "≠"
    assert f"{found.cite}; differs: {said}; " in str(found.footnote(same_but))


def test_the_sweeps_set_is_not_the_published_one() -> None:
    """Ranked layer by layer, and with what was just pruned among the candidates."""
    run = heddes("set", "scope=layer", **{"grow.regrow": True, "allocation": "er_fan_in"})
    training = best(run).training(run)
    assert training.said == (
        "differs: scope=global (ours layer), grow.regrow=false (true), allocation=er_fan_out (er_fan_in)"
    )


def test_the_row_of_the_nearest_training_comes_first() -> None:
    run = record_as("rigl", ["model=resnet50", "dataset=imagenet", "sparsity=0.8", "epochs=100"])
    smooth, plain = (configured(Run(Path(), "", "done", run, {}), "label_smoothing", ls) for ls in (0.1, 0))
    assert "label_smoothing=0 " not in best(plain).training(plain).said
    assert best(plain).words["label_smoothing"] == "0"
    configured(smooth, "label_smoothing", 0.1)
    assert best(smooth).words["label_smoothing"] == "0.1"


def test_what_a_source_does_not_say_is_named_and_never_agrees() -> None:
    """One line a group of which nothing is known."""
    run = heddes("set")
    nothing = compare(run, {}, "set", TOP1)
    assert nothing.word == "not all known"
    assert nothing.sign == "?"
    assert nothing.open == [
        "epochs", "batch_size", "scope", "schedule", "grow.regrow", "optimizer", "label_smoothing", "allocation",
        "dataset.augment", "dataset.limit",
    ]  # fmt: skip
    one = compare(run, best(run).words | {"epochs": 200, "allocation": "er_fan_out"}, "set", TOP1)
    assert one.said == "not known: dataset.limit"


def test_what_a_record_does_not_have_is_open_unless_there_was_one_way() -> None:
    run = heddes("set")
    assert run.record is not None
    config = run.record["config"]
    for key, was in {"optimizer.nesterov": False, "schedule.start": "interval", "optimizer.decay": "all"}.items():
        group, leaf = key.split(".")
        config[group].pop(leaf, None)
        assert defaulted(run, key) == was
    assert best(run).training(run) == Training()
    del config["schedule"]["fraction"], config["grow"]["regrow"]
    training = best(run).training(run)
    assert training.differs == ("grow.regrow=false (ours true)",)
    assert training.unknown == ("schedule.fraction=0.2 (ours unknown)",)
    assert training.said.endswith("; not known: schedule.fraction=0.2 (ours unknown)")


def test_settings_that_nothing_reads_are_not_compared() -> None:
    said = {"schedule.fraction": 0.2, "scope": "global", "initialization": "fan_in", "method.batch": "fresh"}
    static = compare(heddes("static"), said, "static", TOP1)
    assert not static.differs
    assert not {"schedule", "schedule.fraction", "scope", "initialization"} & set(static.unknown)
    cosine = heddes("snip", "optimizer.lr_schedule=cosine")
    assert differs(cosine) == ("optimizer.lr_schedule=multistep (ours cosine)",)
    adam = heddes("snip")
    assert adam.record is not None
    adam.record["choices"]["optimizer"] = "adamw"
    for key in ("momentum", "nesterov"):
        del adam.record["config"]["optimizer"][key]
    assert differs(adam) == ("optimizer=sgd (ours adamw)",)
    other = heddes("set", schedule="constant")
    assert other.record is not None
    said = best(other).words | {"schedule.final_fraction": 0}
    del other.record["config"]["schedule"]["final_fraction"]
    assert not any("final_fraction" in key for key in compare(other, said, "set", TOP1).unknown)


@pytest.mark.parametrize("model", ["vit", "mlp"])
def test_allocations_by_fan_are_one_where_all_layers_are_linear(model: str) -> None:
    run = configured(heddes("static"), "model", model)
    for allocation in ("er", "er_fan_in"):
        training = compare(configured(run, "allocation", allocation), {"allocation": "er_fan_out"}, "static", TOP1)
        assert not training.differs
    training = compare(configured(run, "allocation", "erk"), {"allocation": "er_fan_out"}, "static", TOP1)
    assert training.differs == ("allocation=er_fan_out (ours erk)",)


def test_older_records_call_it_er() -> None:
    run = configured(heddes("static"), "allocation", "er")
    assert differs(run) == ("allocation=er_fan_out (ours er_fan_in)",)
    assert not compare(run, {"allocation": "er_fan_in"}, "static", TOP1).differs


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["schedule.interval_steps=250"], 250),
        (["schedule.interval_steps=null", "schedule.recipe_interval_steps=1000", "schedule.recipe_steps=7820"], 1000),
        (["schedule.interval_steps=null", "schedule.recipe_interval_steps=1000", "schedule.recipe_steps=15640"], 500),
        (["schedule.interval_steps=null", "schedule.updates=9"], 469),
        (["schedule.interval_steps=null", "schedule.updates=0"], None),
    ],
)
def test_the_interval_is_the_one_that_the_run_had(tmp_path: Path, words: list[str], steps: int | None) -> None:
    """7,820 steps, updates until 4,692."""
    record = heddes("set", "epochs=20", *words).record
    assert record is not None
    folder = write(tmp_path, record)
    run = Run(folder, "run", "done", record, {})
    assert defaulted(run, "schedule.interval_steps") == steps
    (folder / "metrics.csv").unlink()


def test_an_interval_is_unknown_without_the_number_of_steps() -> None:
    run = heddes("set", "schedule.interval_steps=null")
    assert best(run).training(run).unknown == ("schedule.interval_steps=1000 (ours unknown)",)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("flops.inference_x_dense", ("scope=layer (ours global)",)),
        (
            "flops.train_x_dense",
            ("scope=layer (ours global)", "schedule.interval_steps=100 (1000)", "method.batch=current (fresh)"),
        ),
        (
            "flops.train",
            ("epochs=90 (ours 200)", "scope=layer (global)", "schedule.interval_steps=100 (1000)",
             "method.batch=current (fresh)"),
        ),
    ],
)  # fmt: skip
def test_only_what_can_move_a_number_is_held_against_it(metric: str, said: tuple[str, ...]) -> None:
    theirs = {
        "epochs": 90, "scope": "layer", "schedule.interval_steps": 100, "schedule.fraction": 0.3, "optimizer.lr": 1.6,
        "method.batch": "current", "label_smoothing": 0.1,
    }  # fmt: skip
    training = compare(heddes("rigl"), theirs, "rigl", metric)
    assert training.differs == said
    assert "optimizer" not in training.unknown


def test_the_curve_of_gradual_pruning_moves_its_cost() -> None:
    training = compare(heddes("gmp"), {"schedule": "cubic", "scope": "global"}, "gmp", "flops.train_x_dense")
    assert training.differs == ("schedule=cubic (ours cosine)",)


def test_a_run_in_another_precision_does_not_pass_for_fp32() -> None:
    run = configured(heddes("set"), "precision", "bf16")
    assert best(run).training(run).said == "not known: precision (ours bf16)"
    assert compare(run, {"precision": "fp32"}, "set", TOP1).differs == ("precision=fp32 (ours bf16)",)
    run = configured(heddes("set"), "precision", "tf32")
    assert best(run).training(run).said == ""


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("0", 0.0, True),
        ("1e-4", 0.0001, True),
        ("0.3333", 1 / 3, True),
        ("0.3", 1 / 3, False),
        ("[0.4,0.6]", [0.4, 0.6], True),
        ("[0.4,0.6]", [0.4], False),
        ("[0.4,0.6]", [0.4, 0.7], False),
        ("true", True, True),
        ("true", 1, False),
        ("1", True, False),
        ("null", None, True),
        ("0", None, False),
        ("global", "global", True),
    ],
)
def test_values_are_compared_as_what_they_are(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_methods_that_start_sparse_are_known_by_where_they_are_kept() -> None:
    from dstrun.report.training import _starts_sparse, preset

    labels = [file.stem for file in (ROOT / "conf/method").glob("*.yaml")]
    assert all(preset(label) for label in labels)
    sparse = {label for label in labels if label != "dst" and _starts_sparse(label)}
    assert sparse == {"static", "set", "rigl", "gse", "itop", "set_itop", "snfs", "mest", "dsr", "deepr"}
