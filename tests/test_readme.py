"""The README is true of the repository: its links, its methods, its width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    heads = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    files = {link for link in links if not link.startswith(("#", "http"))}
    assert {link for link in links if link.startswith("#")} <= anchors
    assert [link for link in sorted(files) if not (ROOT / link).exists()] == []
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - files <= {"docs/index.md", "docs/api.md"}


def test_every_method_is_named() -> None:
    methods = TEXT.partition("## Methods")[2].partition("## Commands")[0]
    named = {
        name for line in re.findall(r"^\| (`.*?) \|", methods, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }
    assert named == {file.stem for file in (ROOT / "conf" / "method").glob("*.yaml")}


def test_no_line_is_longer_than_a_reader_sees() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 100] == []


def test_the_first_run_prints_what_is_shown(dstrun) -> None:
    command, shown = re.search(r"```\n(dstrun model=mlp [^`]*?)\n```\n\n```\n([^`]*)\n```", TEXT).groups()  # type: ignore[union-attr]
    run = dstrun(*command.split()[1:])
    printed, shown = (" ".join(text.split()) for text in (f"{run.stderr}{run.stdout}", shown))
    exact = (
        r"mlp-digits\S+ \(new\)",
        r"mlp on digits: .*?, cpu, fp32",
        r"[\d,]+ of [\d,]+ connections active.*?\(simulated on dense storage\)",
        r"\d+ topology updates, steps \d+ to \d+",
        r"FLOPs \S+ M to train .*? executed \S+ x dense",
    )
    for pattern in exact:
        assert re.findall(pattern, printed) == re.findall(pattern, shown) != [], pattern
    top1, peak = ([float(re.search(pattern, text)[1]) for text in (printed, shown)]  # type: ignore[index]
                  for pattern in (r"top-1 (\S+) %", r"peak memory (\S+) MB"))  # fmt: skip
    assert top1[0] == pytest.approx(top1[1], abs=2)  # other processors round otherwise
    assert peak[0] == pytest.approx(peak[1], rel=0.05)
