"""The tables and figures of documents are what their records make today, as ``make evidence`` checks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import evidence  # noqa: E402

MADE = [made for document in evidence.documents() for made in evidence.found(document)]
TABLES = [made for made in MADE if made.figure is None]


@pytest.mark.parametrize("made", MADE, ids=lambda made: f"{made.document.name}: {' '.join(made.words)}")
def test_it_is_that_of_its_records(made: evidence.Made) -> None:
    assert not evidence.differs(made, write=False)


def test_every_kept_table_and_figure_has_its_command() -> None:
    published = ROOT / "results" / "published"
    tables = {file for file in published.glob("*/*.md") if file.parent.name != "accounting"}
    assert tables <= {made.document for made in TABLES}
    assert {*published.rglob("*.png")} == {made.figure for made in MADE if made.figure}


def test_what_differs_is_found_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = "results/published/vgg16_small-200"
    (tmp_path / runs).parent.mkdir(parents=True)
    shutil.copytree(ROOT / runs, tmp_path / runs)
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    figure = f"{runs}/curves.png"
    document = tmp_path / "README.md"
    plot = f"<!-- dstrun plot curves {runs} --out {figure} -->"
    text = f"Before\n\n<!-- dstrun table {runs} -->\n<!-- end -->\nAfter\n\n{plot}\n"
    document.write_text(text)
    assert evidence.check(document) == [f"dstrun plot curves {runs} --out {figure}", f"dstrun table {runs}"]
    assert document.read_text() == text
    evidence.check(document, write=True)
    assert evidence.check(document) == []
    assert "| gse " in document.read_text()
    assert document.read_text().startswith("Before\n\n<!-- dstrun table ")
    assert "<!-- end -->\nAfter\n" in document.read_text()
    document.write_text(document.read_text().replace("82.5", "82.6"))
    record = next((tmp_path / runs).glob("*-static-*"))
    shutil.rmtree(record)
    assert len(evidence.check(document)) == 2


def test_a_table_without_an_end_is_told_of(tmp_path: Path) -> None:
    document = tmp_path / "odd.md"
    document.write_text("<!-- dstrun table a -->\n\n<!-- dstrun table b -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="no <!-- end --> after dstrun table a"):
        list(evidence.found(document))
