from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of
from training_fixture import configured

from dstrun.config.composition import compose
from dstrun.report.load import Run
from dstrun.report.published import Reference, read, references, shipped
from dstrun.report.training import is_training, option, same
from dstrun.system.trouble import ConfigError

ROOT = Path(__file__).parents[2]
ROWS = read(shipped())
PUBLISHED = references()
HEADER = "dataset,model,method,allocation,settings,sparsity,metric,value,std,epochs,source,confidence,note"
ROW = "cifar10,resnet56,gse,er,,0.98,accuracy.top1,88.1,0.2,200,Us,verified,"

SUMMARY = "results/WRN-28-2_results_summary.csv (values/100)"
PRUNED = {"model.dense_depthwise": False}
FOREIGN = {
    "dataset": {"IWSLT14 de-en"},
    "model": {"DynamicConv", "resnet32 (2x width)"},
    "method": {
        "AC/DC", "Chase (Sc=0)", "Chase (Sc=0.3)", "Chase (Sc=0.4)", "Chase_1.5x (Sc=0)", "Chase_1.5x (Sc=0.3)",
        "Chase_1.5x (Sc=0.4)", "DNW", "FP32 baseline", "GMP_1.5x", "LTR", "MEST vs AutoSparse", "MEST_0.67x+EM",
        "MEST_0.67x+EM&S", "MEST_1.5x", "MEST_1.7x+EM", "MLPrune", "OBD", "S-GaP",
        "Small Dense", "Small-Dense", "Small-Dense_5x", "Top-KAST+Powerprop", "TopK+GA minus TopKAST+PP",
        "all four techniques", "any static mask", "combination", "global magnitude", "magnitude STE",
        "random gradual", "saliency gradual", "thin dense",
    },
    "allocation": {
        "adaptive", "adaptive, stem and shortcuts dense", "erk, conv1 dense", "fixed budget", "non-uniform",
        "structured", "uniform, first and last layer dense", "uniform, stem and shortcuts dense",
        "uniform, stem, shortcuts and classifier dense", "unknown", "",
    },
    "metric": {
        "BLEU_loss", "accuracy_loss_pct", "extra_inference_flops_pct", "extra_train_flops_pct",
        "inference_flops_reduction_x", "memory_reduction_x", "peak_train_memory_MB", "test_flops_ratio", "top1_delta",
        "train_flops_ratio", "train_flops_reduction_x",
    },
}  # fmt: skip
"""Words of the sources that have no equal among ours; anything else must be one of ours."""


def run_of(label: str = "gse", sparsity: float = 0.98, split: str = "test", **changes: Any) -> Run:
    """Make a finished run of resnet56 on cifar10 with er, unless ``changes`` say otherwise."""
    parts = {"method": label, "grow": None, "schedule": None, "prune": None}
    if label in ("snip", "dense", "str", "gmp"):
        parts |= {"allocation": None}
    if label not in ("gse", "set", "rigl", "dense"):
        changes = parts | changes
    record = record_of(label, sparsity, 0, 87.0, **changes)
    record["accuracy"]["split"] = split
    return Run(Path("run"), "run", "done", record, {})


def imagenet(label: str, sparsity: float, allocation: str | None, epochs: int = 100, **changes: Any) -> Run:
    return run_of(
        label, sparsity, model="resnet50", dataset="imagenet", allocation=allocation, epochs=epochs, **changes
    )


def wide(label: str, sparsity: float, depth: int, **changes: Any) -> Run:
    """Make a finished run of a wide ResNet of twice the width, with the dropout of those that are published."""
    settings = {"model.depth": depth, "model.width": 2.0, "model.dropout": 0.3}
    return run_of(label, sparsity, model="wideresnet", epochs=250, **(settings | changes))


def mobile(label: str, sparsity: float, allocation: str | None, **changes: Any) -> Run:
    settings = {"model.dense_depthwise": True} | changes
    return run_of(label, sparsity, model="mobilenet_v1", dataset="imagenet", allocation=allocation, **settings)


def values(run: Run, metric: str = "accuracy.top1") -> list[float | None]:
    return [found.value for found in PUBLISHED.find(run, metric)]


def test_every_word_of_the_shipped_file_is_ours_or_known_to_be_foreign() -> None:
    records = [json.loads(file.read_text()) for file in (ROOT / "results/published").glob("*/*/record.json")]
    groups = [(group, node) for record in records for group, node in record.items() if isinstance(node, dict)]
    ours = {group: {p.stem for p in (ROOT / "conf" / group).glob("*.yaml")} for group in FOREIGN}
    ours["metric"] = {f"{group}.{key}" for group, node in groups for key in node}
    for group, foreign in FOREIGN.items():
        words = {getattr(row, group) for row in ROWS}
        assert words - ours[group] == foreign


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration by dotted keys."""
    found = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


OURS = sorted({row.method for row in ROWS} - FOREIGN["method"] - {"dense"})


@pytest.mark.parametrize("method", OURS)
def test_every_setting_of_the_shipped_file_is_one_of_ours(method: str) -> None:
    """The fullest row of each method composes; the others say nothing that it does not have."""
    rows = sorted((row for row in ROWS if row.method == method), key=lambda row: -len(row.words))
    said = rows[0].words
    none = ["~allocation"] if method == "gmp" and not rows[0].allocation else []  # its preset has one
    which = [f"model={rows[0].model}"] if rows[0].model not in FOREIGN["model"] else []
    made = compose([f"method={method}", *which, *none, *(f"{key}={word}" for key, word in said.items())])
    known = flat(made.config) | made.choices
    assert all(same(known[key], word) for key, word in said.items() if key not in made.choices)
    keys = {key for row in rows for key in row.words if not key.startswith("model.")}
    assert keys - known.keys() <= {"schedule.final_fraction"}
    for row in rows:
        assert {key for key in row.words if key.startswith("model.")} <= {
            f"model.{key}" for key in option("model", row.model)
        }


def test_the_two_that_most_is_held_against_say_how_they_trained() -> None:
    """Rows that quote others, and MobileNets, do not: nobody here knows."""
    quoted = {"DNW", "GMP_1.5x", "gmp", "snfs"}
    for row in ROWS:
        evci, heddes = (row.source.startswith(name) for name in ("Evci et al. 2020", "Heddes et al. 2024"))
        if row.model == "mobilenet_v1" or (evci and row.method in quoted and row.epochs is None):
            continue
        if evci or heddes:
            training = {key for key in row.words if is_training(key)}
            assert {"batch_size", "optimizer.lr", "optimizer.lr_schedule", "optimizer.weight_decay"} <= training, row
        if (evci or heddes) and row.method in ("set", "rigl", "gse"):
            assert {"scope", "schedule.fraction"} <= training, row
            assert "schedule.interval_steps" in training or row.epochs in (300, 400), row


def test_the_shipped_file_has_every_row_with_its_source() -> None:
    assert len(ROWS) == 649
    assert all(row.table and row.paper_method and row.paper_model for row in ROWS)
    accuracies = [row.value for row in ROWS if row.metric.startswith("accuracy.") and row.value is not None]
    assert min(accuracies) > 20
    assert max(accuracies) < 100
    ratios = [row.value for row in ROWS if row.metric.endswith("_x_dense") or row.metric == "parameters.explored"]
    assert all(ratio is not None and 0 < ratio < 1 for ratio in ratios)
    assert [row.note[:9] for row in ROWS if row.value is None] == ["collapsed", "collapsed", "more than"]


@pytest.mark.parametrize(
    ("run", "metric", "expected"),
    [
        (run_of("gse"), "accuracy.top1", (86.99, "Fig. 5", 200)),
        (run_of("gse", 0.9), "accuracy.top1", (90.98, "Fig. 5", 200)),
        (run_of("set", allocation="uniform_all"), "accuracy.top1", (85.2, "Fig. 5", 200)),
        (run_of("snip"), "accuracy.top1", (82.9, "Fig. 6", 200)),
        (run_of("gmp", scope="global", prune="magnitude"), "accuracy.top1", (88.0, "Fig. 6", 200)),
        (run_of("rigl", model="vgg16_small", dataset="cifar100"), "accuracy.top1", (39.85, "Fig. 5", 200)),
        (run_of("gse", model="vit", dataset="cifar100"), "accuracy.top1", (40.7, "Table 3", 200)),
        (run_of("gse", model="vit", dataset="cifar100", epochs=400), "accuracy.top1", (47.8, "Table 3", 400)),
        (run_of("dense", 0.0, model="vit", dataset="cifar100"), "accuracy.top1", (60.3, "Table 4", 200)),
        (run_of("dense", 0.0, dataset="cifar100"), "accuracy.top1", (70.13, "Fig. 7", 200)),
        (imagenet("static", 0.9, "erk"), "accuracy.top1", (67.7, "results.jpg", 100)),
        (imagenet("snip", 0.9, None, 90), "accuracy.top1", (61.97, "ImageNet table", 90)),
        (imagenet("snip", 0.9, "uniform", scope="layer"), "accuracy.top1", (67.2, "Table 2", 100)),
        (imagenet("rigl", 0.9, "erk"), "flops.train_x_dense", (0.24, "1x training", 100)),
        (imagenet("rigl", 0.9, "uniform"), "flops.inference_x_dense", (0.13, "5x training", None)),
        (imagenet("dense", 0.0, None), "flops.inference", (8.2e9, "dense", None)),
        (imagenet("str", 0.9023, None), "flops.inference", (6.86e8, "ResNet50 (MAC)", None)),
        (wide("rigl", 0.8, 22, allocation="erk"), "accuracy.top1", (93.1, "table", 250)),
        (wide("snfs", 0.9, 28, allocation="uniform_all"), "accuracy.top1", (93.614, SUMMARY, None)),
        (mobile("rigl", 0.9, "uniform", epochs=1000), "accuracy.top1", (69.28, "MobileNet-v1 extended", 1000)),
        (mobile("str", 0.8901, None, **PRUNED), "accuracy.top1", (62.1, "MobileNetV1", 100)),
        (mobile("str", 0.8901, None, **PRUNED), "flops.inference", (8.4e7, "MobileNetV1 (MAC)", None)),
        (mobile("dense", 0.0, None), "flops.inference", (1.138e9, "MobileNetV1 (MAC)", None)),
        (run_of("grasp", model="vgg19", allocation=None), "accuracy.top1", (92.19, "Tables 2 and 3", 160)),
    ],
    ids=lambda value: value.id if isinstance(value, Run) else str(value),
)
def test_known_cells(run: Run, metric: str, expected: tuple[float, str, int | None]) -> None:
    best = PUBLISHED.find(run, metric)[0]
    assert (best.value, best.table, best.epochs) == expected


def test_longer_training_is_another() -> None:
    """RigL, ERK, 80 %: 75.02 after 100 epochs without label smoothing and 76.17 after 500."""
    once = [configured(imagenet("rigl", 0.8, "erk", epochs), "label_smoothing", 0.0) for epochs in (100, 500)]
    assert PUBLISHED.find(once[0], "accuracy.top1")[0].epochs == 100
    assert values(once[1])[0] == 76.17
    smooth = configured(imagenet("rigl", 0.8, "erk", 500), "label_smoothing", 0.1)
    assert values(smooth)[0] == 77.17
    (short,) = [row for row in PUBLISHED.find(smooth, "accuracy.top1") if row.value == 75.02]
    assert "epochs=100 (ours 500)" in short.training(smooth).differs
    assert "label_smoothing=0 (0.1)" in short.training(smooth).differs


def test_ratios_of_longer_trainings_are_relative_to_another_training() -> None:
    assert values(imagenet("rigl", 0.8, "erk", 500), "flops.train_x_dense") == [0.42, 0.42]


@pytest.mark.parametrize(
    "run",
    [
        run_of(split="validation"),
        run_of(allocation="erk"),
        run_of(allocation=None),
        run_of(sparsity=0.979),
        run_of(label="gse-grabo"),
        run_of(model="vgg16"),
        run_of(dataset="digits"),
        run_of(prune="sign"),
        run_of(grow="random"),
        run_of("snip", model="vgg16_small"),
        imagenet("rigl", 0.8, "er"),
        imagenet("set", 0.8, None),
        imagenet("gmp", 0.8, None),
        wide("rigl", 0.8, 28, allocation="erk"),
        wide("rigl", 0.8, 22, allocation="erk", **{"model.dropout": 0.0}),
        wide("set", 0.9, 28, allocation="uniform"),
        mobile("str", 0.8901, None),
    ],
)
def test_another_cell_finds_nothing(run: Run) -> None:
    assert values(run) == []


@pytest.mark.parametrize(
    ("run", "key", "same", "other"),
    [
        (run_of(), "grow.gamma", 1, 2.0),
        (run_of(), "model.width", 1.0, 2.0),
        (run_of(), "model.depth", 56, 57),
        (run_of(), "powerprop", 1.0, 2.0),
        (run_of("lth", allocation=None), "method.rewind", 0.0, 0.03),
        (imagenet("rigl", 0.8, "uniform"), "allocation.dense_first", True, False),
        (imagenet("rigl", 0.8, "erk"), "allocation.power", 1.0, 0.5),
        (imagenet("snfs", 0.8, "erk"), "method.redistribution", False, True),
    ],
)
def test_a_setting_that_makes_another_network_or_method_finds_nothing(
    run: Run, key: str, same: Any, other: Any
) -> None:
    assert values(configured(run, key, same))
    assert values(configured(run, key, other)) == []


def test_a_setting_that_a_row_asks_for_must_be_known() -> None:
    assert values(run_of("lth", allocation=None)) == []


def test_counts_of_our_own_stand_beside_no_run() -> None:
    assert any(row.metric == "parameters.prunable" for row in ROWS)
    assert values(run_of("dense", 0.0), "parameters.prunable") == []


def test_wider_networks_have_rows_of_their_own() -> None:
    wide = configured(run_of(sparsity=0.7489968, dataset="cifar100"), "model.width", 2)
    assert values(wide) == [72.3]


def test_a_sparsity_that_emerged_is_the_one_that_counts() -> None:
    run = configured(imagenet("str", 0.9023, None), "sparsity", 0.0)
    assert values(run) == [74.31]


def user(tmp_path: Path, *rows: str, name: str = "mine.csv") -> Path:
    file = tmp_path / name
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    return file


def test_a_users_row_wins_and_the_last_file_most(tmp_path: Path) -> None:
    first, second = user(tmp_path, ROW), user(tmp_path, ROW.replace("88.1", "88.2"), name="second.csv")
    found = references([first, second]).find(run_of(), "accuracy.top1")
    assert [row.value for row in found] == [88.2, 88.1, 86.99, 86.99]


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ("1,0.2,200,A,verified", "2,,30,B,recalled-low"),
        ("1,0.2,200,A,verified", "2,,,B,recalled-low"),
        ("1,0.2,200,A,verified", "2,,60,B,recalled-low"),
        ("1,0.2,200,A,recalled-high", "2,,200,B,verified"),
        ("1,,200,A,verified", "2,0.2,200,B,verified"),
    ],
    ids=["as long", "of unknown length", "nearer in length", "surer", "with a deviation"],
)
def test_best_first(tmp_path: Path, worse: str, better: str) -> None:
    """The run trained for 30 epochs."""
    rows = [f"cifar10,resnet56,gse,er,,0.98,accuracy.top1,{row}," for row in (worse, better)]
    for order in (rows, rows[::-1]):
        found = references([user(tmp_path, *order)]).find(run_of(), "accuracy.top1")
        assert [row.value for row in found][:2] == [2, 1]


def test_a_footnote_says_source_training_and_note(tmp_path: Path) -> None:
    row = ROW.replace("er,,", "er,scope=global batch_size=128,") + "read off a figure"
    run = configured(run_of(epochs=6), "dataset.limit", 20000)
    (found, *_) = references([user(tmp_path, row)]).find(run, "accuracy.top1")
    assert str(found.footnote(run)) == (
        "Us (verified); differs: epochs=200 (ours 6), scope=global (layer), dataset.limit=null (20000); not known: "
        "schedule, method.batch, grow.sampling, optimizer, label_smoothing, allocation.dense_first; read off a figure"
    )
    configured(run, "dataset.limit", None)
    assert "20000" not in str(found.footnote(run))


def test_allocations_by_fan_stand_beside_each_other_and_say_so() -> None:
    for allocation in ("er", "er_fan_in", "er_fan_out"):
        run = run_of("set", allocation=allocation)
        if allocation != "er":
            configured(run, "allocation.flatten", allocation.removeprefix("er_"))
        (found, *_) = PUBLISHED.find(run, "accuracy.top1")
        assert found.value == 85.51
        said = f"allocation=er_fan_out ({'er_fan_in' if allocation == 'er' else allocation})"
        assert (said in found.training(run).differs) == (allocation != "er_fan_out")


def test_imported_numbers_keep_what_they_are_of() -> None:
    """AC/DC's uniform leaves the last layer dense too, Chase quotes MEST without saying which layers are."""
    rows = [row for row in ROWS if row.source.startswith(("Peste", "Yin"))]
    assert len(rows) == 58
    assert all(row.confidence == "verified" for row in rows)
    longer = [row for row in rows if "1.5x" in row.method and row.metric != "accuracy.top1"]
    assert {row.metric for row in longer} == {"flops.inference_x_dense", "train_flops_ratio"}
    assert not any(PUBLISHED.find(imagenet("mest", 0.8, each), "accuracy.top1") for each in ("erk", "uniform", None))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("88.1", "88,1"), "line 2: has more cells than there are columns"),
        ("cifar10,resnet56", "line 2: has fewer cells than there are columns"),
        (ROW.replace("88.1", "88.1 %"), "line 2: value=88.1 % must be a number"),
        (ROW.replace("88.1", "nan"), "line 2: value=nan must be a number"),
        (ROW.replace("88.1", ""), "line 2: value is empty, and no note says why"),
        (ROW.replace("0.98", "98"), "line 2: sparsity=98 must be in [0, 1)"),
        (ROW.replace("0.2", "-0.2"), "line 2: std=-0.2 must be at least 0"),
        (ROW.replace("200", "1.5"), "line 2: epochs=1.5 must be a whole number"),
        (ROW.replace("verified", "verifed"), "(did you mean verified?)"),
        (ROW.replace("Us", ""), "line 2: source is empty"),
        (
            ROW.replace("er,,", "er,gamma 2,"),
            "line 2: settings=gamma 2 must be overrides as",
        ),
        (f"{ROW}\n{ROW}", "line 3 repeats line 2"),
    ],
)
def test_a_wrong_row_is_named_in_one_sentence(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        references([user(tmp_path, row)])
    assert said in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'mine.csv'} line ")


def test_a_wrong_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    with pytest.raises(ConfigError, match=r"mine\.csv cannot be read: No such file"):
        read(file)
    file.write_text("")
    with pytest.raises(ConfigError, match="lacks the column dataset"):
        read(file)
    file.write_text(HEADER.replace("value", "valeu") + "\n")
    with pytest.raises(ConfigError, match=r"column valeu is not known: .*\(did you mean value\?\)"):
        read(file)
    file.write_text(HEADER.replace("value,", "") + "\n")
    with pytest.raises(ConfigError, match="lacks the column value"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a CSV file"):
        read(file)


def test_the_least_a_row_may_have(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "\ufeffmodel,dataset,method,sparsity,metric,value,source,confidence\n"
        "resnet20,cifar10,dense,0,accuracy.top1,92.5,Us,recalled\n",
        encoding="utf-8",
    )
    (row,) = read(file)
    assert row == Reference(
        dataset="cifar10", model="resnet20", method="dense", sparsity=0, metric="accuracy.top1", value=92.5,
        source="Us", confidence="recalled",
    )  # fmt: skip
    assert row.cite == "Us (recalled)"
