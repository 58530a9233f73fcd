"""What a step costs, in words, is what ``dstrun plan`` counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dstrun.account.formula import step
from dstrun.cli.help import options
from dstrun.config.composition import compose
from dstrun.config.option import option
from dstrun.method.interface import Method
from dstrun.method.update import ProductCounts

PAGE = Path(__file__).parents[2] / "docs" / "accounting.md"


def said(*words: str) -> str:
    experiment = compose(words)
    parts = [experiment.build(part) for part in ("method", "grow", "schedule")]
    run = {key: experiment.config[key] for key in ("epochs", "sparsity")}
    return step(*parts, classes=experiment.build("dataset").classes, **run)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("method=dense", "3 f_D"),
        ("method=static", "3 f_S"),
        ("method=set", "3 f_S"),
        ("method=rigl", "3 f_S; updates 2 f_S + f_D"),
        ("method=gse", "3 f_S; updates 2 f_S + f_C"),
        ("method=gse subset=grabo", "3 f_S; updates 2 f_S + f_C + f_agg"),
        ("method=gse method.batch=fresh", "3 f_S; samples of updates 2 f_S + f_C"),
        ("method=gmp", "3 f_S(t)"),
        ("method=taylor", "3 f_S(t); once 100 x 3 f_D"),
        ("method=taylor method.rounds=3", "3 f_S(t); each round 100 x 3 f_S(t)"),
        ("method=sss", "at most 3 f_D"),
        ("method=snfs", "2 f_S + f_D"),
        ("method=mest method.soft_bound=true", "3 f_S(t)"),
        ("method=snip", "3 f_S; once 100 x 3 f_D"),
        ("method=snip dataset=cifar100", "3 f_S; once 1000 x 3 f_D"),
    ],
)
def test_in_the_words_of_the_documentation(words: str, expected: str) -> None:
    assert said(*words.split()) == expected


@option
class Wide(Method):
    """Forward with few connections, weight gradients of some more."""

    def planned_phases(self, sizes, counts, schedule: Any, total: int):
        yield total // 2, ProductCounts.of(counts, [3 * c for c in counts])
        yield total - total // 2, ProductCounts(list(counts), list(sizes), [3 * c for c in counts])


def test_every_pass_has_its_own_name() -> None:
    assert step(Wide(), None, None, classes=10, epochs=9, sparsity=0.9) == "f_S + f_B(t) + f_B"


@pytest.mark.parametrize("name", options("method"))
def test_the_table_of_the_documentation_has_every_method(name: str) -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.count("|") == 4]
    (found,) = (cells[2].strip() for cells in rows if f"`{name}`" in cells[1].split())
    assert found == said(f"method={name}")
