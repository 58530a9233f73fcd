"""Loss curves of 30 steps, kept: a change that means no other numbers leaves them as they are.

Write them anew, after a change that is meant to change numbers, with ``python tests/train/test_golden.py``; say why in
CHANGELOG under Numerics. With names after it, only these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from dstrun.cli.help import options
from dstrun.config.composition import compose
from dstrun.run.assemble import assemble

pytestmark = pytest.mark.usefixtures("outlined_once")

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = 30
COMMON = ["dataset=digits", "model=resnet20", "model.width=0.5", "epochs=3", "optimizer.lr=0.05", "threads=1"]
PRESETS = [name for name in options("method") if name != "dst"]
FAN_IN, PLAIN = "allocation=er_fan_in", "optimizer.nesterov=false"
AS_KEPT = {
    **dict.fromkeys(("gse", "set", "static"), FAN_IN),
    **dict.fromkeys(("rigl", "gmp", "thin", "snfs", "itop", "set_itop", "dsr", "deepr"), PLAIN),
    "mest": "optimizer.lr_warmup=0.05",
    **dict.fromkeys(("str", "autosparse"), "method.threshold_lr=0.05"),
}
"""Words for presets whose values have changed since their curves were drawn: the numbers behind them have not."""
CURVES = {name: [f"method={name}", *filter(None, [AS_KEPT.get(name)])] for name in PRESETS} | {
    **{name: [f"method={name}", "epochs=2", "sparsity=0.9"] for name in ("magnitude", "taylor", "fisher")},
    "sss": ["method=sss", PLAIN, "method.factor_lr=0.05"],
    "lth": ["method=lth", "epochs=1", "method.levels=2", "sparsity=0.9"],
    "gse-grabo": ["method=gse", FAN_IN, "subset=grabo", "sparsity=0.9"],
    "gse-graest": ["method=gse", FAN_IN, "subset=graest", "sparsity=0.9"],
    "gse-fresh": ["method=gse", FAN_IN, "method.batch=fresh", "sparsity=0.9"],
    "gse-global": ["method=gse", FAN_IN, "scope=global", "sparsity=0.9"],
    "adamw-smooth": [
        "method=gse",
        "optimizer=adamw",
        "optimizer.weight_decay=0.0001",
        "label_smoothing=0.1",
        "allocation=uniform",
        "sparsity=0.9",
    ],
    "heddes2024-gse": ["protocol=heddes2024", "method=gse", "epochs=3", "sparsity=0.9"],
    "heddes2024-snip": ["protocol=heddes2024", "method=snip", "epochs=3", "sparsity=0.9"],
    "evci2020-rigl": ["protocol=evci2020", "method=rigl", "epochs=3", "sparsity=0.9"],
}


def curve(words: list[str]) -> list[float]:
    """The training loss of every step."""
    threads = torch.get_num_threads()
    if words[-1] != "sparsity=0.9" and compose([*COMMON, *words]).config["sparsity"]:
        words = [*words, "sparsity=0.9"]
    experiment = compose([*COMMON, *words])
    training = assemble(experiment, torch.device("cpu"))
    training.model.train()
    training.prepare()
    losses, before = [], 0.0
    for _ in range(STEPS):
        training.take_step()
        losses.append(training.loss_sum.item() - before)
        before = training.loss_sum.item()
    torch.set_num_threads(threads)
    assert training.updates > 0 or experiment.choices["schedule"] is None
    return losses


@pytest.mark.parametrize("name", CURVES)
def test_curve_is_as_kept(name: str) -> None:
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    assert curve(CURVES[name]) == pytest.approx(kept, rel=2e-3, abs=2e-3)


if __name__ == "__main__":
    for name in sys.argv[1:] or CURVES:
        words = CURVES[name]
        (GOLDEN / f"{name}.json").write_text(json.dumps([round(loss, 5) for loss in curve(words)]) + "\n")
