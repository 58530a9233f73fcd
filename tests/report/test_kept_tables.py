"""The tables kept in ``results/published`` are what their runs make today, letter by letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstrun.cli.main import main

ROOT = Path(__file__).parents[2] / "results" / "published"

KEPT = {
    "small-budget/allocation.md": ["rows=method,allocation"],
    "small-budget/extended.md": ["cols=epochs"],
    "small-budget/flops.md": ["--preset=flops", "rows=method,schedule.interval_steps,sparsity"],
    "small-budget/memory.md": ["--preset=memory"],
    "small-budget/subset.md": ["cols=grow.gamma"],
    "small-budget/width.md": [
        "rows=method,model.width,sparsity", "cols=", "value=accuracy.top1,parameters.active,memory.peak_bytes",
    ],
    "vgg16_small-200/accuracy.md": ["--published"],
    "vgg16_small-cifar10/accuracy.md": [],
    "vgg16_small-cifar10/cost.md": ["--preset=cost"],
    "vgg16_small-cifar10/flops.md": ["--preset=flops"],
    "vgg16_small-heddes2024/accuracy.md": ["--published"],
    "vgg16_small-methods/accuracy.md": ["--published", "--against=dense"],
    "vgg16_small-methods/cost.md": ["--preset=cost"],
    "vgg16_small-methods/flops.md": ["--preset=flops"],
    "vgg16_small-methods/memory.md": ["--preset=memory"],
}  # fmt: skip
"""The words of ``dstrun table`` behind each."""


@pytest.mark.parametrize("file", KEPT)
def test_a_kept_table_is_that_of_its_runs(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ROOT / file
    runs = kept.parent if kept.parent.parent == ROOT and kept.parent.name != "small-budget" else kept.with_suffix("")
    assert main(["table", str(runs), *KEPT[file]]) == 0
    assert capsys.readouterr().out == kept.read_text()


def test_every_kept_table_is_looked_at() -> None:
    found = {str(file.relative_to(ROOT)) for file in ROOT.glob("*/*.md")}
    assert found - {f"accounting/{name}.md" for name in ("check_values", "published_flops")} == set(KEPT)
