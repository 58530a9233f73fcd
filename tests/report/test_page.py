from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from report_fixture import record_of, write, write_results, write_status, write_sweep

from dstrun.cli.main import main
from dstrun.report import figure, load, page
from dstrun.report.figure import sheet
from dstrun.report.page import drawing, settings
from dstrun.report.style import HUES, NEUTRAL, PALE
from dstrun.system.trouble import ConfigError

FAILED = "default/resnet56-cifar10-gse-s0.98-seed2-77aa01"
QUEUED = "resnet56-cifar10-rigl-s0.99-seed0-77aa02"


class Document(HTMLParser):
    """A page taken apart: rows of tables by their region, and what every tag says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._cell = self._region = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        if known.get("role") == "region":
            self._region = self.tables.setdefault(str(known["aria-label"]), [])
        elif tag == "tr" and self._region is not None:
            self._region.append([])
        elif tag in ("td", "th") and self._region:
            self._region[-1].append("")
            self._cell = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._cell:
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.words += data.split()
        if self._cell and self._region:
            self._region[-1][-1] = " ".join([*self._region[-1][-1].split(), *data.split()])

    def all(self, key: str) -> list[str]:
        return [str(known[key]) for _, known in self.tags if key in known]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def write_study(root: Path) -> Path:
    """Let the failed run of the sweep leave its traceback and its configuration, and a sweep want one run more."""
    results = write_results(root)
    (results / FAILED / "error.txt").write_text("Traceback:\n  deep inside\ntorch.OutOfMemoryError: <2 GB>\n")
    record = record_of("gse", 0.98, 2, 0.0, batch_size=256)
    (results / FAILED / "config.yaml").write_text(json.dumps({"choices": record["choices"]} | record["config"]))
    words = ["/usr/bin/dstrun", "-m", "grow=gse", "sparsity=0.9,0.95"]
    write_sweep(results / "default", {Path(FAILED).name: None, QUEUED: "12_0"}, command=words)
    return results


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "results")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of the study, two folders away from it: for tests that only read it."""
    folder = tmp_path_factory.mktemp("study")
    out = folder / "pages" / "a page" / "report.html"
    page.write(load.runs(write_study(folder / "results")), [folder / "results"], out, 2000.0)
    return out


@pytest.fixture(scope="module")
def found(written: Path) -> Document:
    return Document(written.read_text())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out figures, which take most of a page's time, where a test is about tables."""
    monkeypatch.setattr(drawing, "drawings", lambda runs: ([], []))


def made(root: Path, **said: str) -> Document:
    return Document(page.render(load.runs(root), [root], root.parent, 2000.0, **said))


def test_a_page_has_what_was_asked_what_came_and_what_failed(found: Document) -> None:
    assert (
        "How do SET, RigL and GSE compare with each other and with dense training for ResNet-56 on CIFAR-10, at "
        in found.text
    )
    assert "at sparsities 90 %, 95 %, 98 % and 99 %?" in found.text
    assert "29 done 1 failed 1 queued" in found.text
    assert "Made from 29 records, the newest of 1970-01-01 00:16 UTC" in found.text
    assert "dstrun -m grow=gse sparsity=0.9,0.95 1970-01-01 00:15 UTC, not ended, slurm on login: 1" in found.text
    accuracy = found.tables["Table: Accuracy: ResNet-56 on CIFAR-10 (test)"]
    assert accuracy[0] == ["", "", "90%", "95%", "98%"]
    assert accuracy[1] == ["Method", "Dense", *["Ours", "Published"] * 3]
    gse = next(row for row in accuracy if row[0] == "GSE")
    for text, begin in zip(gse[2::2], ("91.2 ± 0.2 (3", "90.0 ± 0.2 (3", "87.3 ± 0.2 (2 of 3"), strict=True):
        assert text.startswith(begin)
    assert [cell[:-2] for cell in gse[3::2]] == ["≠ 91.0", "≠ 89.8", "≠ 87.0"]
    assert found.text.count("Heddes et al. 2024 (GSE), supplement, Fig. 5 (verified)") == 1
    assert "published, and ours where it differs: 200 epochs (ours 30), scope global (ours layer" in found.text
    assert "≠: published after another training than ours" in found.text
    assert "Table: Cost: ResNet-56 on CIFAR-10 (test)" in found.tables
    assert {"Figure: curves", "Figure: sparsity"} <= found.tables.keys()
    assert "failed out of memory 1 run" in found.text
    assert "torch.OutOfMemoryError: <2 GB>" in found.text


@pytest.mark.usefixtures("undrawn")
def test_title_and_question_are_what_was_said_where_it_was(study: Path) -> None:
    found = made(study, title="A < B", question="Does <b> hold?")
    assert "dstrun report A < B Does <b> hold?" in found.text


def test_the_table_of_runs_has_every_run_and_its_numbers(found: Document) -> None:
    head, *rows = found.tables["Table: Runs"]
    assert head == [
        "run", "top-1 (%)", "", "state", "method", "apart by", "sparsity", "seed", "train FLOPs", "peak memory",
        "train time", "commit",
    ]  # fmt: skip
    by_name = {row[0]: row for row in rows}
    assert len(rows) == len(by_name) == 31
    # All names begin alike, which the caption says.
    assert "names without resnet56-cifar10-, which all have" in found.text
    done = by_name["rigl-s0.98-seed1-3f9c2a"]
    assert done[1] == "86.40"
    assert done[3:] == ["done", "rigl", "", "98%", "1", "2.20e13", "64.4 MB", "15m 00s", "-"]
    assert by_name["gse-s0.98-seed2-77aa01"][3:8] == ["failed", "gse", "batch_size=256", "98%", "2"]
    assert by_name["rigl-s0.99-seed0-77aa02"][3:8] == ["queued", "rigl", "", "99%", "0"]


@pytest.mark.usefixtures("undrawn")
def test_details_of_a_run_have_its_command_commit_settings_and_files(study: Path) -> None:
    record = record_of("rigl", 0.98, 7, 86.0, epochs=60)
    record["command"] = ["model=resnet56", "sparsity=0.98", "name=two words"]
    record["code"] |= {"git_commit": "0123456789abcdef" * 2, "dirty": True}
    write(study, record)
    found = made(study)
    (row,) = [row for row in found.tables["Table: Runs"] if row[0] == "rigl-s0.98-seed7-3f9c2a"]
    assert "command dstrun model=resnet56 sparsity=0.98 'name=two words'" in row[2]
    assert "commit 0123456789abcdef0123456789abcdef , with changes not committed" in row[2]
    assert "epochs=60" in row[2]
    assert "grow=gradient" in row[2]
    assert "files metrics.csv, record.json, status.json" in row[2]
    assert row[5] == "epochs=60"
    assert row[-1] == "01234567*"


def test_every_link_leads_somewhere(written: Path, found: Document) -> None:
    ids = Counter(found.all("id"))
    assert max(ids.values()) == 1
    targets = [href for href in found.all("href") if href != "data:,"]
    # 30 runs have a folder, and the failed one is named twice.
    assert sum(not href.startswith("#") for href in targets) == 31
    for href in targets:
        assert not href.startswith("/")
        assert href[1:] in ids if href.startswith("#") else (written.parent / unquote(href)).is_dir()
    for key in ("popovertarget", "aria-labelledby"):
        assert set(" ".join(found.all(key)).split()) <= ids.keys()
    assert set(re.findall(r"url\(#([^)]*)\)", written.read_text())) <= ids.keys()


def test_nothing_is_asked_of_a_network(written: Path) -> None:
    text = written.read_text()
    # Names of vocabularies are no addresses of anything.
    assert set(re.findall(r"\w+://[^\"\s]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text


def test_the_same_records_give_the_same_page(written: Path) -> None:
    study = written.parents[2] / "results"
    assert page.render(load.runs(study), [study], written.parent, 9e9) == written.read_text()


@pytest.mark.usefixtures("undrawn")
def test_what_runs_leave_is_text_and_no_markup(study: Path) -> None:
    write_status(study, "default/<i>x</i>", "failed", message="<script>alert(1)</script> & 'more'")
    text = page.render(load.runs(study), [study], study.parent, 2000.0)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<i>x" not in text


@pytest.mark.usefixtures("undrawn")
def test_failures_alike_are_told_once(results: Path) -> None:
    for seed in range(25):
        write_status(results, f"default/resnet56-cifar10-set-s0.9-seed{50 + seed}-1", "diverged", message="not finite")
    found = made(results)
    assert "diverged not finite 25 runs" in found.text
    assert "and 5 more, in the table of runs" in found.text


def test_configuration_is_parted_into_what_differs_what_comes_along_and_what_is_shared(found: Document) -> None:
    differs = {row[0]: row[1] for row in found.tables["Table: Settings that differ"][1:]}
    along = {row[0]: row[1] for row in found.tables["Table: Settings that come with choices"][1:]}
    assert list(differs)[:3] == ["method", "sparsity", "seed"]
    assert differs["method"] == "dense 3 runs dst 27"
    assert differs["grow"] == "gradient 9 runs gse 9 random 9 not set 3"
    assert differs["batch_size"] == "128 29 runs 256 1"
    assert along["grow.gamma"] == "1.0 9 runs not set 21"
    assert along["schedule.fraction"] == "0.2 27 runs not set 3"  # the default, which these records do not say
    assert {key.partition(".")[0] for key in along} == {"grow", "schedule"}
    assert "epochs=30" in found.text


@pytest.mark.usefixtures("undrawn")
def test_environment_counts_runs(results: Path) -> None:
    record = record_of("set", 0.9, 9, 90.0)
    record["env"] |= {"torch": "2.15.0", "device": "NVIDIA H100"}
    record["code"] |= {"git_commit": "f" * 40, "dirty": True}
    write(results, record)
    found = {row[0]: row[1] for row in made(results).tables["Table: Environment"][1:]}
    assert found["PyTorch"] == "2.9.0 29 runs 2.15.0 1"
    assert found["device"] == "NVIDIA H100 1 run cpu 29"
    assert found["commit"] == "ffffffffffff with changes not committed 1 run not known 29"
    assert found["threads"] == "2"


@pytest.mark.parametrize(
    ("runs", "asked"),
    [
        ([("gse", 0.9), ("gse", 0.98)], "How does GSE do for ResNet-56 on CIFAR-10, at sparsities 90 % and 98 %?"),
        ([("gse", 0), ("dense", 0)], "How does GSE compare with dense training for ResNet-56 on CIFAR-10?"),
        ([("dense", 0.0)], "How well does dense training do for ResNet-56 on CIFAR-10?"),
        ([("rigl", 0.9), ("set", 0.9)], "How do SET and RigL compare for ResNet-56 on CIFAR-10, at 90 % sparsity?"),
        ([], "What are the results of these runs?"),
    ],
)  # fmt: skip
def test_the_question_is_made_of_what_varies(tmp_path: Path, runs: list[tuple[str, float]], asked: str) -> None:
    for label, sparsity in runs:
        write(tmp_path, record_of(label, sparsity, 0, 90.0))
    assert settings.question(load.runs(tmp_path)).replace("\N{NO-BREAK SPACE}", " ") == asked


@pytest.mark.usefixtures("undrawn")
def test_conditions_hold_for_planned_runs(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    for condition, rows in (("where=method:rigl", 10), ("where=method:set", 9)):
        assert main(["report", str(study), condition, "--out", str(out)]) == 0
        assert len(Document(out.read_text()).tables["Table: Runs"]) == 1 + rows
    # None of the sweep's runs is left.
    assert "dstrun -m" not in out.read_text()


def test_a_page_of_runs_of_which_none_is_done(tmp_path: Path) -> None:
    write_status(tmp_path, "default/mlp-digits-set-s0.9-seed0-1", "running", heartbeat=1990.0, epoch=3, epochs=10)
    found = made(tmp_path)
    assert "1 running" in found.text
    assert not [label for label in found.tables if label.startswith(("Table: Accuracy", "Figure"))]
    assert found.tables["Table: Runs"][1][3:5] == ["running 3/10", "set"]


@pytest.mark.parametrize("color", sorted({NEUTRAL, PALE, *HUES.values()}))
def test_colors_of_methods_are_seen_in_the_dark(color: str) -> None:
    assert drawing.contrast(drawing.lightened(color), drawing.DARK) >= drawing.CONTRAST


def test_contrast_is_that_of_wcag() -> None:
    assert drawing.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert drawing.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_a_figure_takes_its_colors_from_the_page(sweep: list[load.Run]) -> None:
    drawings, left_out = drawing.drawings(sweep)
    assert not left_out
    for drawn in drawings:
        assert not drawn.pixels
        assert not re.search(r"#[0-9a-f]{6}\b", drawn.html)
        assert "currentColor" in drawn.html
        assert drawn.name not in ("curves", "sparsity") or HUES["vermillion"] in drawn.inks
        assert "<style" not in drawn.html
    names = {name for name, *_ in drawing.inks(drawings)}
    assert set(re.findall(r"--(ink-\w+)", "".join(d.html for d in drawings))) == names


def test_a_figure_of_many_points_is_pixels(sweep: list[load.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "POINTS", 200)
    monkeypatch.setattr(figure, "PRESETS", {name: figure.PRESETS[name] for name in ("curves", "sparsity")})
    curves = {drawn.name: drawn for drawn in drawing.drawings(sweep)[0]}
    assert curves["curves"].html.startswith("<img ")
    assert curves["sparsity"].html.startswith("<svg ")


def test_rounding_leaves_the_drawing() -> None:
    with sheet():
        assert drawing._rounded('d="M 1.0 20.125 L -0.004 3"') == 'd="M 1 20.12 L -0 3"'


def test_command_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(study), "--out", str(out), "--title", "Growth"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "<title>Growth</title>" in out.read_text()
    (tmp_path / "none").mkdir()
    assert main(["report", str(tmp_path / "none")]) == 3
    assert main(["report", str(study), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "page.pdf must end in .html" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_be_written_is_one_sentence(study: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        page.write(load.runs(study), [study], tmp_path / "taken" / "page.html", 2000.0)


def test_no_torch_no_wandb_no_pandas(study: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules |= dict.fromkeys(['torch', 'wandb', 'pandas']); from dstrun.cli.main import main"
    code += f"; sys.exit(main(['report', {str(study)!r}, '--out', 'page.html']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    assert (tmp_path / "page.html").exists()
