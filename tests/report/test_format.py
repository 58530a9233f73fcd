from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from dstrun.report.format import Cited, Column, Mean, cell, fixed, in_bytes, in_seconds, render, spans
from dstrun.system.trouble import ConfigError

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
            r"none & -- & -- & -- & -- & -- & -- & -- \\",
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
        (Mean(54.31, 0.52, 2, 3, True, "†"), "**54.3 ± 0.5** (2 of 3)†", r"$\mathbf{54.3 \pm 0.5}$ (2 of 3)$\dagger$"),
        (Mean(54.31, 0.52, 3, 3, difference=-2.46), "54.3 ± 0.5 (3) [-2.5]", r"$54.3 \pm 0.5$ (3) [$-2.5$]"),
        (Mean(54.31, None, 1, at="90.0"), "54.3 (1) at 90.0%", r"$54.3$ (1) at 90.0\%"),
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
    with pytest.raises(
        ConfigError, match=r"--format latx is not known: choose md, csv, json, latex, html .*mean latex\?"
    ):
        render([], [], "latx")


GROUPED = [
    Column("method", head=True),
    Column("sparsity", head=True),
    Column("a", "ours", "number", above=("resnet56", "top-1")),
    Column("b", "published", "number", above=("resnet56", "top-1")),
    Column("c", "peak", "bytes"),
]
GROUPED_ROWS = [
    {"method": "set", "sparsity": "90%", "a": 1, "b": Cited(2.25, "a"), "c": 1000},
    {"method": "set", "sparsity": "95%", "a": 1, "c": None},
    {"method": "<b>", "sparsity": "95%", "a": 1, "c": 5},
]


def test_md_says_groups_in_every_heading_and_row() -> None:
    lines = render(GROUPED_ROWS, GROUPED).splitlines()
    assert lines[0] == "| method | sparsity | resnet56 top-1 ours | resnet56 top-1 published |    peak |"
    assert lines[2] == "| set    | 90%      |                   1 |                  2.2 [a] | 1.00 kB |"
    assert lines[3].startswith("| set    | 95%")


def test_latex_merges_headings_and_names_of_rows() -> None:
    assert render(GROUPED_ROWS, GROUPED, "latex").splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r" &  & \multicolumn{2}{c}{resnet56} &  \\",
        r"\cmidrule(lr){3-4}",
        r" &  & \multicolumn{2}{c}{top-1} &  \\",
        r"\cmidrule(lr){3-4}",
        r"method & sparsity & ours & published & peak \\",
        r"\midrule",
        r"\multirow{2}{*}{set} & 90\% & 1 & $2.2^{a}$ & 1.00 kB \\",
        r" & 95\% & 1 & -- & -- \\",
        r"<b> & 95\% & 1 & -- & 5 B \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_html_has_scopes_spans_and_no_markup_of_others() -> None:
    text = render(GROUPED_ROWS, GROUPED, "html")
    tree = ElementTree.fromstring(text)  # every element is closed
    assert [cell.get("colspan") for cell in tree.findall("thead/tr")[0]] == [None, None, "2", None]
    assert [cell.get("scope") for cell in tree.findall("thead/tr")[2]] == ["col"] * 5
    first, second, third = tree.findall("tbody/tr")
    assert (first[0].get("rowspan"), first[0].get("scope"), first[1].get("scope")) == ("2", "rowgroup", "row")
    assert [cell.text for cell in second] == ["95%", "1", "-", "-"]
    assert "".join(first[3].itertext()) == "2.2a"
    assert third[0].text == "<b>"
    best = ElementTree.fromstring(render([{"m": Mean(1.0, best=True)}], [Column("m", kind="mean")], "html"))
    assert [(cell.get("class"), cell.text) for cell in best.findall("tbody/tr/td")] == [("num best", "1.0 (0)")]


def test_names_are_merged_within_their_group_only() -> None:
    columns = [Column("a", head=True), Column("b", head=True), Column("c", head=True)]
    rows = [dict(zip("abc", letters, strict=True)) for letters in ("xyz", "xyz", "wyz", "wyv")]
    assert spans(rows, columns) == {
        (0, "a"): 2, (1, "a"): 0, (2, "a"): 2, (3, "a"): 0, (0, "b"): 2, (1, "b"): 0, (2, "b"): 2, (3, "b"): 0,
        (0, "c"): 1, (1, "c"): 1, (2, "c"): 1, (3, "c"): 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.89, 1, 5.5], ["0.89x", "1.00x", "5.50x"]),
        ([1, 1.6], ["1.0x", "1.6x"]),
        ([0.0361, 1.2345], ["0.0361x", "1.2345x"]),
        ([3, 1], ["3x", "1x"]),
        ([250.4, None, 1000], ["250x", "-", "1000x"]),
        ([0, 0.00001], ["0x", "0x"]),
    ],
)
@pytest.mark.parametrize("fmt", ["md", "html"])
def test_factors_of_a_column_have_as_many_decimals(values: list[float | None], shown: list[str], fmt: str) -> None:
    text = render([{"share": value} for value in values], [Column("share", kind="x")], fmt)
    assert re.findall(r"(?<=[> ])(?:[\d.]+x|-)(?=[< ])", text) == shown


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.0, 4, "0.0000"), (0.25, 4, "0.2500"), (0.0001, 4, "0.0001"), (6e-6, 4, "6e-06"), (0.0004, 3, "0.0004")],
)
def test_a_share_of_next_to_nothing_is_not_zero(value: float, digits: int, text: str) -> None:
    assert fixed(value, digits) == cell({"x": value}, Column("x", kind="share", digits=digits)) == text
