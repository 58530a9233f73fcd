from __future__ import annotations

import json

import pytest

from dstrun.option import ConfigError
from dstrun.report.format import Column, Mean, in_bytes, in_seconds, render

COLUMNS = [
    Column("name"),
    Column("epoch", kind="progress", of="epochs"),
    Column("top1", "top-1", "percent", 2),
    Column("peak", kind="bytes"),
    Column("time", kind="seconds"),
    Column("flops", kind="flops"),
    Column("share", kind="x"),
    Column("seeds"),
]
ROWS = [
    {
        "name": "a_b|c & 5%", "epoch": 3, "epochs": 10, "top1": 50.125, "peak": 42_775_824, "time": 80.0,
        "flops": 1234567, "share": 0.0361, "seeds": [0, 1],
    },
    {"name": "none"},
]  # fmt: skip


def test_md_is_aligned_and_in_human_units() -> None:
    assert render(ROWS, COLUMNS, "md") == "\n".join(
        [
            r"| name        | epoch |  top-1 |    peak |   time |  flops |   share | seeds |",
            r"| ----------- | ----: | -----: | ------: | -----: | -----: | ------: | ----- |",
            r"| a_b\|c & 5% |  3/10 | 50.12% | 42.8 MB | 1m 20s | 1.23e6 | 0.0361x | 0, 1  |",
            r"| none        |     - |      - |       - |      - |      - |       - | -     |",
        ]
    )


def test_latex_escapes_and_has_rules() -> None:
    assert render(ROWS, COLUMNS, "latex") == "\n".join(
        [
            r"\begin{tabular}{lrrrrrrl}",
            r"\toprule",
            r"name & epoch & top-1 & peak & time & flops & share & seeds \\",
            r"\midrule",
            r"a\_b|c \& 5\% & 3/10 & 50.12\% & 42.8 MB & 1m 20s & $1.23 \times 10^{6}$ & $0.0361\times$ & 0, 1 \\",
            r"none & - & - & - & - & - & - & - \\",
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def test_csv_and_json_keep_raw_values() -> None:
    assert render(ROWS, COLUMNS, "csv") == "\n".join(
        [
            "name,epoch,epochs,top1,peak,time,flops,share,seeds",
            "a_b|c & 5%,3,10,50.125,42775824,80.0,1234567,0.0361,0 1",
            "none,,,,,,,,",
        ]
    )
    first, second = json.loads(render(ROWS, COLUMNS, "json"))
    assert first == ROWS[0]
    assert second == dict.fromkeys(ROWS[0]) | {"name": "none"}


def test_json_never_says_nan() -> None:
    rows = [{"x": float("nan")}, {"x": float("inf")}]
    assert json.loads(render(rows, [Column("x", kind="number")], "json")) == [{"x": None}, {"x": None}]
    assert "nan" in render(rows, [Column("x", kind="number")], "md")


def test_no_rows_leave_the_header() -> None:
    assert render([], [Column("x")], "md") == "| x   |\n| --- |"
    assert render([], [Column("x")], "csv") == "x"
    assert render([], [Column("x")], "json") == "[]"


@pytest.mark.parametrize(
    ("mean", "md", "latex"),
    [
        (Mean(54.31, 0.52, 3), "54.3 ± 0.5 (3)", r"$54.3 \pm 0.5$ (3)"),
        (Mean(54.31, 0.52, 2, True, "*"), "**54.3 ± 0.5** (2)*", r"$\mathbf{54.3 \pm 0.5}$ (2)*"),
        (Mean(54.31, None, 1), "54.3 (1)", "$54.3$ (1)"),
        (Mean(None, marks="†"), "- †", r"- $\dagger$"),
    ],
)
def test_means(mean: Mean, md: str, latex: str) -> None:
    column = [Column("m", kind="mean")]
    assert render([{"m": mean}], column, "md").splitlines()[2] == f"| {md} |"
    assert render([{"m": mean}], column, "latex").splitlines()[4] == rf"{latex} \\"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_600, "1.00 MB"),
        (8_500_000_000, "8.50 GB"),
        (2e15, "2000 TB"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert in_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (0.0812, "81.2 ms"), (9.13, "9.1 s"), (59.97, "1m 00s"), (3599.6, "1h 00m"), (187_000, "2d 03h")],
)
def test_seconds(value: float, text: str) -> None:
    assert in_seconds(value) == text


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--format latx is not known: choose md, csv, json, latex .*mean latex\?"):
        render([], [], "latx")
