"""``dstrun methods``: every preset in a row."""

from __future__ import annotations

import pytest

from dstrun.cli import methods
from dstrun.cli.help import options
from dstrun.cli.main import main
from dstrun.report.format import render


def test_a_row_a_preset_that_fits_a_line() -> None:
    rows = {row["method"]: row for row in methods.rows()}
    assert list(rows) == options("method")
    assert rows["rigl"] == {
        "method": "rigl",
        "paper": "RigL, rigging the lottery, Evci et al. 2020",
        "step": "3 f_S; updates 2 f_S + f_D",
        "steps": 1.0,
        "starts": "sparse",
        "backend": "any",
    }
    assert rows["magnitude"]["steps"] == 1.6
    assert (rows["gmp"]["starts"], rows["gmp"]["backend"]) == ("dense", "masked")
    assert max(map(len, render(methods.rows(methods.FITS), methods.COLUMNS).splitlines())) <= 120


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (None, "The lottery ticket hypothesis, Frankle and Carbin 2019"),
        (54, "The lottery ticket hypothesis, Frankle and Carbin 2019"),
        (53, "The lottery ticket ..., Frankle and Carbin 2019"),
        (36, "The ..., Frankle and Carbin 2019"),
    ],
)
def test_a_papers_name_is_cut_where_it_does_not_fit(width: int | None, expected: str) -> None:
    assert methods._short("The lottery ticket hypothesis, Frankle and Carbin 2019", width) == expected


def test_a_preset_without_a_paper_is_seen(tmp_path, monkeypatch) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# Mine.\n_target_: mine.Mine\n")
    monkeypatch.setattr(methods, "files", lambda package: tmp_path)
    assert methods.paper("mine") == ""


@pytest.mark.parametrize("form", ["md", "csv", "json", "latex"])
def test_the_verb_prints_every_format(form: str, capsys) -> None:
    assert main(["methods", "--format", form]) == 0
    assert "Zhu and Gupta 2018" in capsys.readouterr().out
