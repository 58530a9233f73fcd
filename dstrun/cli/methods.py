"""Every preset of ``conf/method``, one row each: its paper, the cost of a step, and what it starts from. No torch."""

from __future__ import annotations

import textwrap
from importlib.resources import files
from typing import Any

from dstrun.account.formula import step
from dstrun.cli.described import PAPER
from dstrun.cli.help import options
from dstrun.config.composition import HERE, compose_sweep
from dstrun.layer.backend import is_dense, names
from dstrun.report.format import Column

COLUMNS = [
    Column("method", head=True), Column("paper"), Column("step", "FLOPs per sample"), Column("steps", "steps", "x", 1),
    Column("starts"), Column("backend"),
]  # fmt: skip

SYMBOLS = {
    "f_D": "a forward pass of the dense network",
    "f_S": "of the final sparse network",
    "f_B": "of the connections that the backward pass computes",
    "f_C": "of the growth candidates",
    "f_agg": "the sums that candidates are sampled from",
    "(t)": "changes during training",
}
"""In the column of FLOPs."""
STEPS = (
    "steps: of a whole run, relative to a single training of as many epochs; starts: the network before the first step"
)

FITS = 46
"""Characters of a paper that leave a line of the table within 120."""


def rows(width: int | None = None) -> list[dict[str, Any]]:
    """Return a row a preset, by name, as it is without further words; ``width`` shortens the papers' names."""
    found = []
    for experiment in compose_sweep([f"method={','.join(options('method'))}"]):
        method, grow, schedule = (experiment.build(part) for part in ("method", "grow", "schedule"))
        name, classes = experiment.choices["method"] or "", experiment.build("dataset").classes
        epochs, sparsity = experiment.config["epochs"], experiment.config["sparsity"]
        found.append(
            {
                "method": name,
                "paper": _short(paper(name).partition(";")[0], width),
                "step": step(method, grow, schedule, classes=classes, epochs=epochs, sparsity=sparsity),
                "steps": method.epochs(epochs, sparsity) / epochs,
                "starts": "sparse" if method.start == "sparse" else "dense",
                "backend": ", ".join(filter(is_dense, names())) if method.dense else "any",
            }
        )
    return found


def legend(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the columns hold, and what the symbols in these rows are."""
    seen = [f"{symbol}{': ' if symbol == '(t)' else ', '}{what}" for symbol, what in SYMBOLS.items()
            if any(symbol in row["step"] for row in rows)]  # fmt: skip
    return [f"FLOPs per sample of a training step: {'; '.join(seen)}", STEPS]


def _short(paper: str, width: int | None) -> str:
    """Cut a paper's name, not its authors."""
    name, _, authors = paper.rpartition(", ")
    if width is None or len(paper) <= width:
        return paper
    return f"{textwrap.shorten(name, width - len(authors) - 2, placeholder=' ...', break_on_hyphens=False)}, {authors}"


def paper(name: str) -> str:
    """Read a preset's line on its paper; empty where it has none."""
    lines = files(HERE).joinpath("method", f"{name}.yaml").read_text().splitlines()
    return next((line.removeprefix(PAPER) for line in lines if line.startswith(PAPER)), "")
