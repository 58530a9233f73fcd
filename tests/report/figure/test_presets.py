"""What holds for every preset: files, style, small and empty sweeps."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from report_fixture import layers_of, record_of, write, write_status, write_topology

from dstrun.cli.main import main
from dstrun.report import figure, load
from dstrun.report.figure import canvas
from dstrun.report.figure.kind import memory_timeline
from dstrun.report.style import HUES
from dstrun.system.trouble import ConfigError

MEMORY = {f"{part}_bytes": 1000 for part in ("model", "optimizer", "activation", "index", "method", "transient")}
METHOD_LINES = ("curves", "sparsity", "flops", "memory", "layers", "topology")


TIMELINE = "phase,event,ms,model,optimizer,activation,index,method,transient\n" + "".join(
    f"{phase},{event},{event / 10},1000,{2000 + 10 * event},{100 * event},50,0,{event % 3}\n"
    for phase in ("step", "update")
    for event in range(9)
)


def study(root: Path, model: str = "resnet56", seeds: int = 2) -> list[load.Run]:
    """Write runs for every preset: two gammas, two allocations, two widths, RigL, dense; layers, topology, memory."""
    settings = [
        ("rigl", 0.9, {}), ("gse", 0.9, {}), ("gse", 0.9, {"grow.gamma": 0.5}), ("gse", 0.9, {"allocation": "uniform"}),
        ("gse", 0.975, {"model.width": 2.0}), ("dense", 0.0, {}),
    ]  # fmt: skip
    for number, (label, sparsity, changes) in enumerate(settings):
        for seed in range(seeds):
            record = record_of(label, sparsity, seed, 90 + number / 2 + seed, model=model, **changes)
            record["parameters"]["prunable"] = 4000 if changes.get("model.width") else 1000
            record["memory"] |= MEMORY
            record["layers"] = layers_of(("a", 100, 20, 30), ("b", 900, 80, 70))
            place = write(root, record, f"{model}-{number}-{seed}")
            write_topology(place, [(10, "a", 25, 5, 10, 0.3), (10, "b", 75, 10, 5, 0.2)])
            (place / "memory.csv").write_text(TIMELINE)
    return load.runs(root)


STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("preset", figure.PRESETS)
def test_files_are_written_and_the_same_every_time(preset: str, tmp_path: Path) -> None:
    """Drawn twice, as svg, which has all that is drawn; what other formats add to it is alike for all presets."""
    runs = study(tmp_path / "results")
    if preset == "memory_timeline":  # two panels a run
        runs = runs[:3]
    kinds = ("pdf", "svg") if preset != "allocation" else (*STARTS,)
    for folder, suffixes in ((tmp_path / "new" / "folder", kinds), (tmp_path, kinds if len(kinds) > 2 else ("svg",))):
        outs = [folder / f"figure.{suffix}" for suffix in suffixes]
        assert figure.save(lambda: figure.PRESETS[preset].draw(runs), *outs) == outs[0]
    for suffix in kinds:
        assert (tmp_path / "new" / "folder" / f"figure.{suffix}").read_bytes().startswith(STARTS[suffix])
    for suffix in suffixes:
        written = (tmp_path / "new" / "folder" / f"figure.{suffix}").read_bytes()
        assert written == (tmp_path / f"figure.{suffix}").read_bytes()


def test_fonts_are_embedded_as_text(tmp_path: Path) -> None:
    runs = study(tmp_path / "results")
    figure.save(lambda: figure.PRESETS["sparsity"].draw(runs), tmp_path / "figure.pdf")
    raw = (tmp_path / "figure.pdf").read_bytes()
    text = raw + b"".join(_inflated(stream) for stream in re.findall(rb"stream\r?\n(.*?)endstream", raw, re.DOTALL))
    assert b"/FontFile2" in text
    assert b"/Type3" not in text


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_a_method_keeps_its_hue_and_marker_and_no_two_share_one(tmp_path: Path) -> None:
    runs = study(tmp_path)
    alone = [run for run in runs if run.get("label") == "gse"]
    seen: dict[str, set[str]] = {"rigl": set(), "gse": set()}
    for preset in METHOD_LINES:
        with figure.sheet():
            drawn = figure.PRESETS[preset].draw(runs)
        assert drawn is not None
        for axis in drawn.axes:
            marks = {}
            for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
                line = getattr(handle, "lines", [handle])[0]
                label = re.split(r"[ ,]", name)[0]
                if label in seen:
                    seen[label].add(to_hex(line.get_color()))
                    marks.setdefault(line.get_marker(), set()).add(name)
            assert all(len(names) == 1 for names in marks.values()), preset
    assert seen == {"rigl": {HUES["orange"]}, "gse": {HUES["vermillion"]}}
    with figure.sheet():
        drawn = figure.PRESETS["sparsity"].draw(alone)
    assert drawn is not None
    assert (
        len({to_hex(bar.lines[0].get_color()) for bar in drawn.axes[0].containers}) > 2
    )  # variants of one method alone


def test_a_name_has_one_line_in_all_panels(tmp_path: Path) -> None:
    write(tmp_path, record_of("gse", 0.9, 0, 90.0, epochs=60), "a")
    for epochs in (30, 60):
        write(tmp_path, record_of("gse", 0.9, 0, 90.0, epochs=epochs, model="vgg16"), f"b{epochs}")
        write(tmp_path, record_of("gse", 0.9, 0, 90.0, epochs=epochs, model="vit"), f"c{epochs}")
    with figure.sheet():
        drawn = figure.PRESETS["sparsity"].draw(load.runs(tmp_path))
    assert drawn is not None
    lines = {(bar.get_label(), bar.lines[0].get_linestyle()) for axis in drawn.axes for bar in axis.containers}
    assert {name for name, _ in lines} == {"gse", "gse (epochs=30)", "gse (epochs=60)"}
    assert len(lines) == 3


@pytest.mark.parametrize("preset", figure.PRESETS)
def test_one_run_or_very_long_names_draw(preset: str, tmp_path: Path) -> None:
    runs = study(tmp_path, model="a-network-of-mine-with-quite-a-long-name", seeds=1)
    runs += study(tmp_path / "b")
    if preset == "memory_timeline":  # two panels a run
        runs = runs[:2] + runs[-1:]
    draw = figure.PRESETS[preset].draw
    assert figure.save(lambda: draw(runs), tmp_path / "long.png")
    (tmp_path / "one").mkdir()
    write(tmp_path / "one", record_of("a-method-of-mine", 0.5, 0, 90.0, epochs=1))
    needs_more = {"subset", "improvement", "allocation", "width", "layers", "topology", "memory_split", "memory_pies"}
    needs_more.add("memory_timeline")
    drawn = figure.save(lambda: draw(load.runs(tmp_path / "one")), tmp_path / "one.png")
    assert (drawn is None) == (preset in needs_more)


@pytest.mark.parametrize("preset", figure.PRESETS)
def test_nothing_to_draw_writes_nothing(tmp_path: Path, preset: str) -> None:
    write_status(tmp_path, "a", "failed")
    assert figure.save(lambda: figure.PRESETS[preset].draw(load.runs(tmp_path)), tmp_path / "no.png") is None
    assert not (tmp_path / "no.png").exists()


def test_the_numbers_of_seeds_are_said(tmp_path: Path) -> None:
    """And nothing floats in a corner; what is asked of any figure is done; matplotlib warns of nothing (pytest.ini)."""
    runs = study(tmp_path, seeds=2)
    one = [run for run in runs if run.seed == 0]
    asked = figure.Asked("A title", {"gse": "Ours", "resnet56": "R56"}, 5.0, (10.0, 95.0), 1)
    for name, preset in figure.PRESETS.items():
        with figure.sheet(), figure.asking(asked):
            drawn = preset.draw(runs)
        assert drawn is not None
        assert drawn.note.startswith("n = 2 seeds"), name  # type: ignore[attr-defined]
        assert "n = 2 seeds" in figure.caption(preset, drawn)
        assert drawn.get_supxlabel() == ""
        assert drawn.get_figwidth() == 5
        assert {axis.get_ylim() for axis in drawn.axes} == {(10, 95)}
        texts = [text.get_text() for text in drawn.findobj(Text)]
        assert "A title" in texts, name
        assert not any(re.search(r"\bgse\b|resnet56|cifar10", text) for text in texts), name
        with figure.sheet():
            assert preset.draw(one).note.startswith("n = 1 seed")  # type: ignore[union-attr]


def test_more_rows_than_can_be_told_apart_are_refused_with_what_would_split_them(tmp_path: Path) -> None:
    runs = [
        replace(run, record=record_of("gse", 0.9, 0, 90.0, epochs=epochs))
        for run in study(tmp_path, seeds=1)[:1]
        for epochs in range(10, 23)
    ]
    for preset in ("sparsity", "flops", "curves", "memory"):
        with figure.sheet(), pytest.raises(ConfigError, match=r"13 rows .* \(12\).* where=epochs:VALUE \(10, 11"):
            figure.PRESETS[preset].draw(runs)
    with figure.sheet():
        assert figure.PRESETS["sparsity"].draw(runs[1:]) is not None


def test_settings_given_win_over_the_sheet(tmp_path: Path) -> None:
    runs = study(tmp_path)
    for color in ("#123456", "#654321"):
        with figure.sheet({"text.color": color, "axes.facecolor": color}):
            drawn = figure.PRESETS["memory_pies"].draw(runs)
        assert drawn is not None
        assert {text.get_color() for text in drawn.axes[0].texts} == {color}
        assert {to_hex(wedge.get_edgecolor()) for wedge in drawn.axes[0].patches} == {color}


def test_other_suffixes_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fig\.pnq must end in one of \.png, \.pdf, \.svg \(did you mean \.png\?\)"):
        figure.save(lambda: pytest.fail("drawn"), tmp_path / "a.png", tmp_path / "fig.pnq")


def test_too_many_runs_for_a_figure_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert canvas.MOST_INCHES == 100
    monkeypatch.setattr(canvas, "MOST_INCHES", 10)
    write(tmp_path, record_of("gse", 0.9, 0, 90.0))
    runs = load.runs(tmp_path)
    for epochs in range(60):
        runs.append(replace(runs[0], record=record_of("gse", 0.9, 0, 90.0, epochs=epochs)))
    for run in runs:
        run.record["memory"] |= MEMORY  # type: ignore[index]
    with (
        figure.sheet(),
        pytest.raises(ConfigError, match="11 inches tall, above 10: choose fewer runs"),
    ):
        figure.PRESETS["memory_split"].draw(runs)


def test_a_folder_that_cannot_be_is_named(sweep: list[load.Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/fig\.png cannot be written"):
        figure.save(lambda: figure.PRESETS["sparsity"].draw(sweep), tmp_path / "file" / "fig.png")


def test_command_line_writes_several_files_and_says_what_is_missing(
    dstrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path / "results")
    done = dstrun("plot", "subset", "--out", "a.png", "--out", "b.pdf")
    assert done.stdout == "a.png\nb.pdf\n"
    assert figure.PRESETS["subset"].caption.rstrip(".") in done.stderr
    assert "n = 2 seeds" in done.stderr
    assert "CIFAR-10 (cifar10)" in done.stderr
    assert "replaced" not in done.stderr
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "subset", "--out", "a.png", "--names", "gse=Ours"]) == 0
    assert "replaced a.png" in capsys.readouterr().err
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "b.pdf").exists()
    assert main(["plot", "subset", "where=model:vgg16"]) == 3
    assert "no runs of GSE that differ in grow.gamma alone below results" in capsys.readouterr().err
    assert main(["plot", "improvement", "results/default/resnet56-0-0"]) == 3
    said = capsys.readouterr().err
    assert "no runs of GSE and RigL that differ in growth alone below results/default/resnet56-0-0" in said


def test_a_timeline_stacks_what_is_held(tmp_path: Path) -> None:
    """Panels of a step and an update on one scale; a run whose file is damaged is left out."""
    runs = study(tmp_path, seeds=1)
    broken = Path(runs[0].folder)
    (broken / "memory.csv").write_text(TIMELINE.replace("1000", "many"))
    assert memory_timeline.timelines(runs[0]) == {}
    with figure.sheet():
        drawn = memory_timeline.draw([run for run in runs if run.get("label") == "dense"] + runs[:1])
    assert drawn is not None
    assert [axis.get_title().rpartition(", ")[2] for axis in drawn.axes] == ["a step", "an update"]
    step, update = drawn.axes
    assert step.get_ylim() == update.get_ylim()
    assert {width for band in step.collections for width in band.get_linewidth()} == {0}  # nothing narrow is hidden
    assert step.get_ylim()[1] == pytest.approx(1.05 * (1000 + 2080 + 800 + 50 + 2) / 1e6)
    assert [band.get_label() for band in step.collections] == ["model", "optimizer", "activation", "index", "transient"]
