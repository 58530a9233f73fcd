"""Hold what ``dstrun plan`` counts against values that others counted: densities, parameters, sizes, FLOPs.

    python benchmarks/check_values.py                             the built-in check values
    python benchmarks/check_values.py --published [FILE.csv]      the FLOPs of ResNet-50 in a table of published results

A check value is written as it was printed; it holds where ours differs by no more than its last digit (a density: plus
the one connection that whole numbers cost). Exit code 1 where one does not hold. Nothing is trained, nothing loaded.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from check_kit import (
    COUNT,
    GSE,
    NOTEBOOK,
    R50,
    RIGL,
    Check,
    Planned,
    counts,
    dense_layers,
    density,
    fraction,
    network,
    planned,
    pruned,
    saving,
    size,
    training,
)

from dstrun.account.flops import paper_ratio
from dstrun.cli.help import options
from dstrun.report.format import FORMATS, Column, render
from dstrun.report.published import Reference, read, shipped
from dstrun.report.training import is_training, preset
from dstrun.system.trouble import ConfigError

NETWORKS = {
    "model=resnet18 dataset=imagenet": ("torchvision", "11689512", "1.81 G"),
    "model=resnet34 dataset=imagenet": ("torchvision", "21797672", "3.66 G"),
    "model=resnet50 dataset=imagenet": ("torchvision", "25557032", "4.09 G"),
    "model=resnet18 model.stem=cifar": ("pytorch-cifar", "11173962", "0.56 G"),
    "model=vit_s16 dataset=imagenet": ("DeiT in timm", "22050664", "4.6 G"),
    "model=vit_s16 dataset=imagenet model.width=0.5": ("DeiT in timm", "5717416", "1.3 G"),
    "model=vit_s16 dataset=imagenet model.width=2": ("DeiT in timm", "86567656", "17.6 G"),
    "model=vgg19": (COUNT, "20035018", "398136320"),
    "model=mobilenet_v1 dataset=imagenet": ("Howard et al. 2017", "4.2 M", "569 M"),
    "model=mobilenet_v1 dataset=imagenet model.width=0.5": ("Howard et al. 2017", "1.3 M", "149 M"),
    "model=wideresnet model.depth=28 model.width=10": ("Zagoruyko and Komodakis 2016", "36.5 M", ""),
    "model=wideresnet model.depth=16 model.width=8": ("Zagoruyko and Komodakis 2016", "11.0 M", ""),
    "model=wideresnet model.depth=28 model.width=2": (COUNT, "1467610", "214353152"),
    "model=wideresnet model.depth=22 model.width=2": (COUNT, "1079642", "157730048"),
}
"""Source, parameters and multiply-adds of a forward pass of the dense network, as printed."""

MOBILENET = {"0.75": ("4.888", "4.894", ".742"), "0.85": ("3.224", "3.229", ".841"), "0.9": ("2.392", "2.396", ".890"),
             "0.95": ("1.560", "1.563", ".940")}  # fmt: skip
"""By sparsity of what RigL prunes: MB with ERK and uniform, and the share of all weights that is zero."""

R56, VGG, VIT = ("method=static model=resnet56", "method=static model=vgg16_small", "method=static model=vit")


def checks() -> list[Check]:
    """List every check value."""
    found: list[Check] = []
    dense = "method=dense"
    found += counts(f"model=resnet56 {dense}", 56, 848_944, "125485696", 853_018)
    found += counts(f"model=resnet56 dataset=cifar100 {dense}", 56, 854_704, "125491456")
    found += counts(f"model=vgg16_small {dense}", 16, 1_252_528, "20239360")
    found += counts(f"model=vgg16_small dataset=cifar100 {dense}", 16, 1_298_608, "20.29")
    found += counts(f"model=vit {dense}", 18, 4_224_000, "270013440")
    found += counts(f"model=vit dataset=cifar100 {dense}", 18, 4_270_080)
    for words, (source, parameters, macs) in NETWORKS.items():
        found += network(f"{words} {dense}", source, parameters, macs)
    v1 = "model=mobilenet_v1 dataset=imagenet"
    found += counts(f"{v1} {dense}", 15, 4_164_448, "568740352", 4_231_976)
    found.append(size(f"{v1} {dense}", "16.864", NOTEBOOK))
    for sparsity, (erk, uniform, zeros) in MOBILENET.items():
        words = f"{v1} method=static sparsity={sparsity} allocation="
        found += [size(f"{words}erk", erk, NOTEBOOK), size(f"{words}uniform", uniform, NOTEBOOK)]
        found.append(pruned(f"{words}erk", zeros, NOTEBOOK))
    vit, r50, gse = f"model=vit {dense}", f"{R50} {dense}", "model=resnet56 method=gse"
    found += [
        Check(f"million MACs in attention: {vit}", lambda: planned(vit).cost.attention / 2e6, "12.6", COUNT),
        Check(f"FLOPs an image: {r50}", lambda: planned(r50).cost.forward(), "8178368512", COUNT),
        Check(f"GFLOPs an image: {r50}", lambda: planned(r50).cost.forward() / 1e9, "8.2", RIGL),
        Check(
            f"EFLOPs in 32,000 steps of 4,096 images: {r50}",
            lambda: 3 * planned(r50).cost.forward() * 32000 * 4096 / 1e18,
            "3.2",
            RIGL,
        ),
        Check(f"steps: {gse}", lambda: planned(gse).flops["steps"], "78000", GSE),
        Check(f"topology updates: {gse}", lambda: planned(gse).flops["updates"], "46", GSE),
    ]
    for words, table in {
        R56: {"conv1": (".0852", ".2230"), "layer1.0.conv1": (".0594", ".0635"), "layer3.8.conv2": (".0149", ".0140"),
              "fc": (".0989", ".4455")},
        VGG: {"features.0": (".2146", ".3410"), "classifier.3": (".0084", ".0230")},
    }.items():  # fmt: skip
        for layer, published in table.items():
            for allocation, value in zip(("er_fan_in", "erk"), published, strict=True):
                found.append(density(f"{words} allocation={allocation} sparsity=0.98", layer, value))
    for layer, value in {"embed.1": ".1102", "blocks.0.attention.qkv": ".0136", "head.1": ".4931"}.items():
        found.append(density(f"{VIT} allocation=er_fan_in sparsity=0.98", layer, value))
    for sparsity, layers in {"0.8": {"conv1": ".857", "fc": ".148"}, "0.9": {"conv1": ".420", "fc": ".0726"}}.items():
        words = f"{R50} method=static allocation=erk sparsity={sparsity}"
        found += [density(words, layer, value) for layer, value in layers.items()]
        found.append(dense_layers(words, {"0.8": 8, "0.9": 1}[sparsity]))
    for words, values in {
        f"{R50} method=static allocation=uniform": {"0.8": ".2231", "0.9": ".1260", "0.95": ".0774"},
        f"{R50} method=static allocation=erk": {"0.8": ".4138", "0.9": ".2418", "0.95": ".1217", "0.99": ".024"},
        f"{R50} method=static allocation=er_fan_in": {"0.8": ".464", "0.9": ".249", "0.95": ".1245"},
        f"{R56} allocation=er_fan_in": {"0.9": ".1756", "0.95": ".0878", "0.98": ".0351"},
        f"{R56} dataset=cifar100 allocation=er_fan_in": {"0.9": ".1759", "0.95": ".0880", "0.98": ".0352"},
        f"{VGG} allocation=er_fan_in": {"0.9": ".2706", "0.95": ".1355", "0.98": ".0542"},
        f"{VIT} allocation=er_fan_in": {"0.9": ".0989", "0.95": ".0489", "0.98": ".0194"},
    }.items():
        found += [fraction(f"{words} sparsity={sparsity}", value) for sparsity, value in values.items()]
    found += [training(f"{R50} method=rigl sparsity={s}", v) for s, v in {"0.8": ".416", "0.9": ".244"}.items()]
    found += [saving(100, "11.7"), saving(1000, "1.3")]
    erk = f"{R50} method=static allocation=erk"
    found += [size(f"{erk} sparsity={s}", v) for s, v in {"0.8": "23.68", "0.9": "13.50", "0.95": "8.40"}.items()]
    found += [size(f"{erk} sparsity=0.99 dense_first", "4.35"), size(r50, "102.12")]
    return found


COLUMNS = [Column(key) for key in ("quantity", "ours", "published", "difference", "source")]

STEPS, BATCH, EPOCHS = 32_000, 4096, 100
"""The training of ResNet-50 by RigL's authors."""

SCALES = {"flops.inference": 1.0, "flops.train": 3.0 * STEPS * BATCH}
"""What is made of the FLOPs of a dense forward pass."""

INFERENCE = ("flops.inference_x_dense", "test_flops_ratio")
TRAINING = ("flops.train_x_dense", "train_flops_ratio")
"""Our words for a ratio, and that of the sources where they count otherwise."""


def published_rows(path: Path) -> list[dict[str, Any]]:
    """Hold the FLOPs of ResNet-50 in a file of published results against ours, where the method is one of ours.

    Returns:
        A row each, with the reason where ours rounds to another number.

    Raises:
        ConfigError: the file is wrong.
    """
    found = []
    for row in read(path):
        metrics = SCALES if row.method == "dense" else (*INFERENCE, *TRAINING)
        ours = row.method in options("method") and row.allocation in ("", *options("allocation"))
        if row.model == "resnet50" and ours and row.metric in metrics and None not in (row.value, row.sparsity):
            found.append(_published_row(row))
    return found


def _published_row(row: Reference) -> dict[str, Any]:
    """Compare one value with ours; of a longer training, relative to dense training once."""
    metric, theirs = row.metric, float(row.value or 0)
    words = f"{R50} method={row.method}"
    if row.method != "dense":
        scope = preset(row.method).get("scope")
        own = (
            f"{key}={word}"
            for key, word in row.words.items()
            if not is_training(key) or (key == "scope" and word != scope)  # no other of training moves its FLOPs
        )
        words = " ".join([words, f"allocation={row.allocation or 'null'}", *own, f"sparsity={row.sparsity}"])
    times = (row.epochs or EPOCHS) // EPOCHS if metric in TRAINING else 1

    def value(words: str, *, elementwise: bool = False) -> float:
        plan = planned(words)
        extra = plan.elementwise() if elementwise else 0
        if metric in SCALES:
            return SCALES[metric] * (plan.cost.forward() + extra)
        if metric in INFERENCE:
            return (plan.cost.forward(plan.active) + extra) / (plan.cost.forward() + extra)
        return times * training_ratio(plan, extra)

    ways = {"": value(words), "bias and ReLU counted": value(words, elementwise=True)}
    if metric in TRAINING and row.method == "gmp":
        ways["pruned every step"] = value(f"{words} schedule.interval_steps=1")
    if metric in TRAINING and row.method == "itop":
        ways["RigL's interval, bias and ReLU"] = value(f"{words} schedule.interval_steps=100", elementwise=True)
    if "allocation=uniform" in words:
        ways["conv1 sparse too"] = value(f"{words} allocation.dense_first=false")
    if times > 1:
        rounded = {way: times * round(number / times, 2) for way, number in ways.items()}
        ways |= {f"{way}, rounded first".removeprefix(", "): number for way, number in rounded.items()}
    unit = theirs * 0.1 if metric in SCALES else 0.1 ** max(2, len(str(theirs).partition(".")[2]))
    return {
        "quantity": f"{metric}{f', {times} x as long' if times > 1 else ''}: {words}",
        "ours": float(f"{ways['']:.4g}"),
        "counted": float(f"{ways['bias and ReLU counted']:.4g}"),
        "published": theirs,
        "difference": float(f"{ways[''] - theirs:.2g}"),
        "reason": _reason({way: abs(number - theirs) - 1e-9 for way, number in ways.items()}, unit),
        "source": row.cite,
    }


def training_ratio(plan: Planned, extra: int) -> float:
    """Count training relative to dense training, with ``extra`` FLOPs in every pass.

    By the formula of the paper where a criterion needs gradients to grow; else by the method's course in 32,000 steps,
    without what it scores before them.
    """
    method, grow, schedule = (plan.experiment.build(part) for part in ("method", "grow", "schedule"))
    sparse, dense = plan.cost.forward(plan.active) + extra, plan.cost.forward() + extra
    if grow is not None:
        interval = schedule.interval_steps or schedule.recipe_interval_steps
        return paper_ratio(grow.cost, sparse, dense, interval, getattr(grow, "paper_candidates", 0.0) * sparse)
    total = 0
    for steps, products in method.planned_phases(
        [layer.size for layer in plan.cost.layers], plan.active, schedule, STEPS
    ):
        passes = (products.forward, products.input_gradient, products.weight_gradient)
        total += steps * sum(plan.cost.forward(taken) + extra for taken in passes)
    return total / (3 * dense * STEPS)


def _reason(apart: dict[str, float], unit: float) -> str:
    """Name the first way of counting that rounds to theirs; else the nearest, if it is within one unit of it."""
    for way, distance in apart.items():
        if distance <= unit / 2:
            return way
    way = min(apart, key=apart.__getitem__)
    return f"{way}, last digit".removeprefix(", ") if apart[way] <= unit else "unexplained"


PUBLISHED = [
    Column("quantity"), Column("ours"), Column("counted", "with bias and ReLU"), Column("published"),
    Column("difference"), Column("reason"), Column("source"),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--published",
        nargs="?",
        const=shipped(),
        type=Path,
        metavar="FILE",
        help="published results to hold against ours instead; without FILE, results/published.csv",
    )
    parser.add_argument("--format", choices=FORMATS, default="md")
    arguments = parser.parse_args()
    if arguments.published is not None:
        try:
            print(render(published_rows(arguments.published), PUBLISHED, arguments.format))
        except ConfigError as error:
            print(f"check_values: {error}", file=sys.stderr)
            return 2
        return 0
    found = checks()
    print(render([check.row() for check in found], COLUMNS, arguments.format))
    failed = [check.quantity for check in found if not check.holds()]
    print(f"{len(found) - len(failed)} of {len(found)} check values hold", file=sys.stderr)
    if failed:
        print("\n".join(["these do not:", *failed]), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
