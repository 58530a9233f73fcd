"""Text of files, in every place where it goes out."""

from __future__ import annotations

import csv
import io
import logging
import re
import subprocess
import sys

import pytest

from dstrun.report.format import Column, render
from dstrun.report.table import Table
from dstrun.report.watch import frame
from dstrun.system import safe
from dstrun.system.progress import say

PAYLOADS = [
    "\x1b]0;owned\x07", "\x9b31mred", "a\u202eb", "x\n\\input{/etc/passwd}", "a\r\n% b", "=cmd|' /C calc'!A0", "+1+1",
    "@SUM(A1)", "-2+3", "\t=1", "$x$ $y", "\u2028line", "\ud800", "<script>", "\x00", "\x7f", "} \\write18{id} {",
]  # fmt: skip
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("fmt", ["md", "csv", "latex", "html"])
def test_tables(payload: str, fmt: str) -> None:
    text = safe.visible(render([{"a": payload, "b": 1, "c": [payload]}], [Column("a"), Column("b"), Column("c")], fmt))
    assert not RAW.search(text)
    if fmt == "latex":
        assert not re.search(r"(?<!text)\\(input|write)", text)
        assert text.count("\n") == 6
    if fmt == "csv":
        row = list(csv.reader(io.StringIO(text)))[1]
        assert not row[0].lstrip().startswith(("=", "+", "-", "@"))
        assert row[1] == "1"


def test_numbers_stay_numbers_in_csv() -> None:
    assert render([{"a": -1.5}], [Column("a")], "csv").split("\n") == ["a", "-1.5"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_log_lines_messages_and_the_watch(payload: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(payload)
    shown = capsys.readouterr().err
    shown += safe.Visible("%(message)s").format(logging.LogRecord("x", 30, "", 0, "%s", (payload,), None))
    row = dict.fromkeys(["run", "host", "job", "message"], payload) | {"state": "failed", "epoch": 1, "epochs": 2}
    shown += "".join(line.plain for line in frame([row], "", 200))
    assert not RAW.search(shown)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_title_of_a_table_is_one_line_and_in_latex_a_comment(payload: str) -> None:
    table = Table.__new__(Table)
    object.__setattr__(table, "parts", [(payload, [{"a": 1}], [Column("a")])])
    object.__setattr__(table, "notes", [])
    for name, empty in (("over", ""), ("preset", "table")):
        object.__setattr__(table, name, empty)
    source = table.render("latex")
    first, second = source.split("\n\n")[1].split("\n")[:2]
    assert first.startswith("% ")
    assert second == r"\begin{table}[t]"
    assert not re.search(r"(?<!text)\\(input|write)", re.sub("(?m)^%.*$", "", source))
    assert table.render("md").split("\n")[1] == ""


def test_what_libraries_warn_of_is_safe(capfd: pytest.CaptureFixture[str]) -> None:
    code = "from dstrun.system import safe; safe.log_to_stderr(); import warnings; warnings.warn('\\x1b[31m \\u202e')"
    subprocess.run([sys.executable, "-c", code], check=True)
    said = capfd.readouterr().err
    assert "\\x1b[31m \\u202e" in said
    assert not RAW.search(said)


@pytest.mark.parametrize(
    "text",
    ["https://me:hunter22@host/x", "WANDB_API_KEY=hunter22", "api_key: hunter22", "it says hunter22secretvalue"],
)
def test_secrets_are_masked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter22secretvalue")
    assert "hunter22" not in safe.without_secrets(text)
    assert "https://host/a@b" in safe.without_secrets("https://host/a@b")


def test_what_is_hidden_is_not_printable() -> None:
    """So that text which Python would print needs no second look."""
    assert not [
        number
        for number in range(sys.maxunicode + 1)
        if re.match(safe.HIDDEN, chr(number)) and chr(number).isprintable()
    ]
