"""Published numbers in a table: plainly beside runs of the same training, beside others with a sign."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from report_fixture import write
from training_fixture import EVERY, configured, heddes, record_as

from dstrun.report import load, table
from dstrun.report.published import Footnote, references
from dstrun.report.table.cells import Options
from dstrun.report.table.latex import _note
from dstrun.report.table.notes import published
from dstrun.report.training import Training

HEADER = "dataset,model,method,allocation,settings,sparsity,metric,value,epochs,source,confidence"
AS, OTHER = "as", "other"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leave a run of SET and one of GSE: as Heddes et al. 2024 trained; and ranked by layer, SET for 30 epochs."""
    root = tmp_path_factory.mktemp("results")
    for label in ("set", "gse"):
        for name in (AS, OTHER):
            run = heddes(label)
            if name == OTHER:
                configured(configured(run, "scope", "layer"), "epochs", 30 if label == "set" else 200)
            assert run.record is not None
            run.record["accuracy"]["top1"] += label == "gse"
            write(root / name, run.record)
    return root


def built(folder: Path, *files: Path) -> table.Table:
    return table.build(load.runs(folder), options=Options(published=references(files)))


def test_a_run_trained_as_published_has_the_number_and_the_difference(folder: Path) -> None:
    made = built(folder / AS).render()
    assert "| method |     98% ours | 98% published | 98% difference |" in made
    assert "| set    |     85.0 (1) |      85.5 [a] |           -0.5 |" in made
    assert "- a: Heddes et al. 2024 (GSE), supplement, Fig. 5 (verified); digitized" in made
    assert "; differs" not in made
    assert "≠" not in made
    assert "?" not in made


def test_a_run_trained_otherwise_has_it_with_a_sign_and_no_difference(folder: Path) -> None:
    made = built(folder / OTHER)
    text = made.render()
    assert "98% difference" not in text
    assert "| set    |     85.0 (1) |    ≠ 85.5 [a] |" in text
    assert "| gse    | **86.0** (1) |    ≠ 87.0 [b] |" in text
    assert "- a: Heddes et al. 2024 (GSE), supplement, Fig. 5 (verified); differs: epochs=200 (ours 30), scope=" in text
    assert "(verified); differs: scope=global (ours layer); digitized" in text
    assert "- ≠: published after another training than ours" in text
    assert r"85.0$ & $\neq$ $85.5^{a}$ \\" in made.render("latex")
    assert '<td class="num">≠ 85.5<sup>a</sup></td>' in made.render("html")


def test_many_footnotes_say_each_source_and_each_difference_once() -> None:
    def foot(table: str, *differs: str, unknown: tuple[str, ...] = ()) -> Footnote:
        return Footnote(f"Us, {table} (verified)", Training(differs, unknown), "")

    three = {
        foot("Fig. 1", "epochs=200 (ours 2)"): "a",
        foot("Fig. 1", "epochs=200 (ours 4)", "scope=global (layer)"): "b",
        foot("Fig. 1", "epochs=200 (ours 4)", unknown=("grow.regrow",)): "c",
        foot("Fig. 2", "epochs=200 (ours 4)"): "d",
    }
    assert published(three) == [
        "a-c: Us, Fig. 1 (verified)",
        "d: Us, Fig. 2 (verified)",
        "published, and ours where it differs: epochs=200 (ours 2 in a; 4 in b-d), scope=global (ours layer in b)",
        "not known: grow.regrow in c",
    ]
    assert _note("a-c, f: us") == r"\item[a-c, f] Us."


def test_a_difference_is_shown_where_any_is_and_only_there(folder: Path) -> None:
    text = built(folder).render()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| set")}
    missing = {name: line.count(" - |") for name, line in rows.items()}
    assert missing == {"set (scope=layer, epochs=30)": 1, "set (scope=global, epochs=200)": 0}


def test_a_source_that_does_not_say_is_marked_and_told_of(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(f"{HEADER}\ncifar10,resnet56,set,er_fan_out,scope=global,0.98,accuracy.top1,86,200,Us,verified\n")
    made = built(folder / AS, mine)
    text = made.render()
    assert "| set    |     85.0 (1) |    ? 86.0 [a] |              - |" in text
    assert "- a: Us (verified); not known: batch_size, schedule, grow.regrow, optimizer, label_smoothing, " in text
    assert "- ?: agrees in all that is known of the published training" in text
    assert r"? $86.0^{a}$" in made.render("latex")


def test_programs_are_told_in_what_the_trainings_differ(folder: Path) -> None:
    for name, training, differs in (
        (AS, "same", ""),
        (OTHER, "differs", "epochs=200 (ours 30), scope=global (layer)"),
    ):
        made = built(folder / name)
        rows = (json.loads(made.render("json")), list(csv.DictReader(io.StringIO(made.render("csv")))))
        for found in rows:
            (row,) = [row for row in found if row["method"] == "set"]
            assert (row["published_training"], row["published_differs"]) == (training, differs)
            assert row["published_unknown"] == ""
            assert bool(row["published_difference"]) == (name == AS)
            assert float(row["published"]) == 85.51


@pytest.mark.parametrize(("values", "within"), [((84.0, 85.0, 87.0), True), ((84.0, 84.1, 84.2), False)])
def test_an_interval_contains_a_published_number_or_not(
    values: tuple[float, ...], within: bool, tmp_path: Path
) -> None:
    for seed, value in enumerate(values):
        write(tmp_path, record_as("set", ["protocol=heddes2024", *EVERY["set"]], seed=seed, top1=value))
    made = table.build(load.runs(tmp_path), options=Options(published=references(), interval=True))
    (cell,) = made.cells
    assert cell["published"] == 85.51
    assert cell["published_within"] is within
    assert f"| {'yes' if within else 'no'} " in made.render()
    assert built(tmp_path).cells[0]["published_within"] is None
    assert "in interval" not in built(tmp_path).render()


def test_a_cell_without_a_published_number_has_no_training(folder: Path, tmp_path: Path) -> None:
    run = heddes("gse", sparsity=0.7)
    assert run.record is not None
    write(tmp_path, run.record)
    (cell,) = built(tmp_path).cells
    assert cell["published"] is None
    assert cell["published_training"] is None
