"""Frames, tables and figures from Python are those of the verbs."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_run import SMALL

import dstrun as library
from dstrun.cli.main import main
from dstrun.system.trouble import ConfigError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for words in (["grow=gse"], ["grow=random"], ["method=dense", "sparsity=0"]):
        library.train(*SMALL, *words, "epochs=1", "threads=1", f"results={folder}/results")
    return folder


@pytest.fixture(autouse=True)
def _here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


@pytest.mark.parametrize("name", ["runs", "epochs"])
def test_frames_are_what_export_writes(name: str, tmp_path: Path) -> None:
    assert main(["export", "results", "where=grow:gse,random", "--out", str(tmp_path)]) == 0
    written = pq.read_table(tmp_path / f"{name}.parquet")
    found = getattr(library, name)("results", "where=grow:gse,random")
    assert list(found.columns) == written.column_names
    assert len(found) == written.num_rows == 2
    assert found.astype(object).where(found.notna(), None).to_dict("records") == written.to_pylist()


def test_a_count_that_some_runs_lack_stays_whole() -> None:
    found = library.runs("results")
    updates = found["memory.update_peak_bytes"]
    assert str(updates.dtype) == "Int64"
    assert updates.isna().tolist() == (found["label"] == "dense").tolist()
    assert library.runs(Path("results"), "where=grow:gradient").empty
    assert library.epochs("results", "where=grow:gradient").empty


def test_a_table_shows_itself(capsys: pytest.CaptureFixture[str]) -> None:
    found = library.table("results", "cols=model", preset="memory", digits=2)
    assert main(["table", "results", "cols=model", "--preset", "memory", "--digits", "2"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert found._repr_html_() == found.render("html")
    assert found._repr_html_().startswith("<table")


def test_a_figure_shows_itself_once() -> None:
    before = dict(mpl.rcParams)
    figure = library.plot("curves", "results")
    assert dict(mpl.rcParams) == before
    image = Image.open(BytesIO(figure._repr_png_()))  # type: ignore[attr-defined]
    assert image.width == pytest.approx(figure.get_figwidth() * 150, abs=1)
    assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_a_figure_is_drawn_as_asked() -> None:
    asked = {"title": "Mine", "names": {"gse": "Ours"}, "width": 5.0, "ylim": (10, 60)}
    figure = library.plot("curves", "results", **asked)  # type: ignore[arg-type]
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]  # type: ignore[attr-defined]
    assert ("Mine" in texts, "Ours" in texts, "GSE" in texts) == (True, True, False)
    assert (figure.get_figwidth(), figure.axes[0].get_ylim()) == (5.0, (10, 60))
    assert library.plot("curves", "results").get_figwidth() != 5.0


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: library.runs("reslts"), r"RESULTS=reslts is not a folder \(did you mean results\?\)"),
        (lambda: library.epochs("results", "were=grow:gse"), "did you mean where"),
        (
            lambda: library.table("results", "where=grow:gradient"),
            "no run below results that meets where=grow:gradient",
        ),
        (lambda: library.table("results", preset="memry"), "did you mean memory"),
        (lambda: library.plot("sparsty"), "plot sparsty is not known: choose .*did you mean sparsity"),
        (lambda: library.plot("curves", "results", width=0.5), "--width 0.5 must be 1.5 to 30 inches"),
        (lambda: library.plot("curves", "results", ylim=(60, 40)), "--ylim 60,40 must be two numbers, the lower first"),
        (lambda: library.plot("curves", "results", columns=9), "--columns 9 must be 1 to 8"),
        (lambda: library.plot("subset", "results", "where=grow:random"), "no .* below results that meets"),
    ],
)
def test_what_is_not_there_is_said(ask, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ask()


def test_without_pandas_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"runs and epochs need pandas, .* pip install pandas"):
        library.runs("results")
