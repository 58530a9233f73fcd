"""Tables at a terminal: within its width, whole words, numbers that can be compared."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dstrun.report.format import Column, Mean
from dstrun.report.terminal import Block, draw, fitting, hanging, show, text, texts
from dstrun.system.wording import wrapped

COLUMNS = [
    Column("method", head=True), Column("paper"), Column("flops", "FLOPs to train", "flops"),
    Column("x", "x dense", "x"), Column("bytes", "peak memory", "bytes"), Column("count", "connections", "number", 0),
]  # fmt: skip
ROWS = [
    {"method": "rigl", "paper": "Rigging the lottery, Evci et al. 2020", "flops": 1.5e15, "x": 0.104, "bytes": 43.5e6,
     "count": 123456},
    {"method": "dense", "paper": "none, the reference", "flops": 2e16, "x": 1.0, "bytes": 143.2e6, "count": 12},
]  # fmt: skip


def drawn(block: Block | str, width: int) -> list[str]:
    file = io.StringIO()
    draw(block, Console(file=file, width=width, highlight=False))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_a_table_keeps_to_the_width_and_to_whole_words(width: int) -> None:
    lines = drawn(Block(ROWS, COLUMNS, "all of them"), width)
    assert max(map(len, lines)) <= width
    known = {word for row in ROWS for word in str(row["paper"]).split()} | {"rigl", "dense", "none,"}
    known |= {word for column in COLUMNS for word in column.heading.split()} | {"method", "paper"}
    known |= {word for column in COLUMNS for cell in texts(ROWS, column) for word in cell.split()}
    table = lines[: next((i for i, line in enumerate(lines) if "left out here" in line), len(lines))]
    assert {word for line in table[1:] for word in line.split() if not set(word) <= {"─"}} <= known


def test_what_does_not_fit_is_named() -> None:
    assert fitting(ROWS, COLUMNS, 200) == COLUMNS
    shown = fitting(ROWS, COLUMNS, 40)
    assert shown == COLUMNS[: len(shown)]
    said = " ".join(drawn(Block(ROWS, COLUMNS), 40))
    assert f"{len(COLUMNS) - len(shown)} columns left out here (--format md shows all)" in said
    assert said.endswith("connections")


def test_a_column_has_one_number_of_decimals() -> None:
    assert texts(ROWS, COLUMNS[3]) == ["0.104x", "1.000x"]
    assert texts(ROWS, COLUMNS[4]) == ["43.5 MB", "143.2 MB"]
    assert texts(ROWS, COLUMNS[5]) == ["123,456", "12"]


def test_small_bytes_do_not_vanish_beside_large_ones() -> None:
    assert texts([{"bytes": 120.0}, {"bytes": 5e9}, {}], COLUMNS[4]) == ["120 B", "5.00 GB", "-"]


def test_the_best_is_bold_and_has_no_stars() -> None:
    file = io.StringIO()
    rows = [{"method": "gse", "top1": Mean(93.2, 0.1, 3, 3, best=True)}]
    columns = [Column("method", head=True), Column("top1", kind="mean")]
    draw(Block(rows, columns), Console(file=file, width=80, force_terminal=True, highlight=False))
    assert "*" not in file.getvalue()
    assert re.search(r"\x1b\[1m93.2 ± 0.1", file.getvalue())


def test_piped_it_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    blocks: list[Block | str] = [Block(ROWS, COLUMNS, "title"), "- a note"]
    show(blocks, None)
    assert capsys.readouterr().out == f"{text(blocks)}\n"
    assert text(blocks).startswith("### title\n\n| method |")
    assert text(blocks).endswith("\n\n- a note")


def test_text_goes_on_below_its_beginning() -> None:
    assert wrapped("state   interrupted at once", 20, hanging) == "state   interrupted\n        at once"
    assert wrapped("- one two three", 10, hanging) == "- one two\n  three"
    assert wrapped("    one two three", 12, hanging) == "    one two\n    three"
    # A path is not broken, and begins where most of it is seen.
    assert wrapped("folder        results/default/mlp", 20, hanging) == "folder\n  results/default/mlp"
