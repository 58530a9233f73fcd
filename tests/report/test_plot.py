from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from report_fixture import record_of, write, write_status

from dstrun.option import ConfigError
from dstrun.report import load, plot
from dstrun.report.style import style

DRAW = {"curves": plot.draw_curves, "sparsity": plot.draw_sparsity}


@pytest.mark.parametrize("preset", plot.PRESETS)
@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_files_are_written_and_the_same_every_time(
    sweep: list[load.Run], tmp_path: Path, preset: str, suffix: str, start: bytes
) -> None:
    one, two = tmp_path / "new" / f"one.{suffix}", tmp_path / f"two.{suffix}"
    assert plot.PRESETS[preset](sweep, one) == one
    plot.PRESETS[preset](sweep, two)
    assert one.read_bytes().startswith(start)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("preset", DRAW)
def test_methods_keep_color_and_marker(sweep: list[load.Run], preset: str) -> None:
    alone = [run for run in sweep if run.get("label") in ("gse", "rigl")]
    for runs in (sweep, alone):
        with plot.sheet():
            figure = DRAW[preset](runs)
        assert figure is not None
        names = {run.get("label") for run in runs if run.done}
        for axis in figure.axes:
            handles, labels = axis.get_legend_handles_labels()
            assert set(labels) == names
            for handle, label in zip(handles, labels, strict=True):
                drawn = getattr(handle, "lines", [handle])[0]
                color, marker = style(label)
                assert to_hex(drawn.get_color()) == color
                # The level of dense training has no marks.
                assert drawn.get_marker() in (marker, "None" if label == "dense" else marker)
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            name for name in ("dense", "set", "rigl", "gse") if name in names
        ]


def test_curves_show_mean_and_seeds(sweep: list[load.Run]) -> None:
    with plot.sheet():
        figure = plot.draw_curves(sweep)
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == [f"resnet56, cifar10, {s}%" for s in (90, 95, 98)]
    lines = figure.axes[2].get_lines()
    mean = next(line for line in lines if line.get_label() == "gse")
    assert list(mean.get_xdata()) == list(range(1, 31))
    assert mean.get_ydata()[-1] == pytest.approx(87.35)
    assert len(lines) == (1 + 3) * 3 + (1 + 2)


def test_sparsity_shows_means_seeds_and_dense(sweep: list[load.Run]) -> None:
    with plot.sheet():
        figure = plot.draw_sparsity(sweep)
    assert figure is not None
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["90", "95", "98"]
    containers = {bar.get_label(): bar.lines[0] for bar in axis.containers}
    assert list(containers["set"].get_ydata()) == pytest.approx([90.4, 88.5, 84.7666667])
    dense = next(line for line in axis.get_lines() if line.get_label() == "dense")
    assert list(dense.get_ydata()) == pytest.approx([93.0, 93.0])
    seeds = [line for line in axis.get_lines() if line.get_markersize() == 2]
    assert sorted(len(line.get_xdata()) for line in seeds) == [2] + [3] * 8


def test_rows_of_one_method_differ_by_line_alone(results: Path) -> None:
    write(results, record_of("gse", 0.98, 0, 88.0, epochs=60), folder="long")
    with plot.sheet():
        figure = plot.draw_sparsity(load.runs(results))
    assert figure is not None
    drawn = {bar.get_label(): bar.lines[0] for bar in figure.axes[0].containers}
    short, long = drawn["gse (epochs=30)"], drawn["gse (epochs=60)"]
    assert short.get_color() == long.get_color()
    assert short.get_marker() == long.get_marker()
    assert short.get_linestyle() != long.get_linestyle()


@pytest.mark.parametrize("preset", plot.PRESETS)
def test_small_sweeps_draw(tmp_path: Path, preset: str) -> None:
    write(tmp_path, record_of("dense", 0.0, 0, 93.0, epochs=1))
    assert plot.PRESETS[preset](load.runs(tmp_path), tmp_path / "dense.png")
    write(tmp_path, record_of("a-method-of-mine", 0.5, 0, 90.0, epochs=2, model="vgg16"))
    assert plot.PRESETS[preset](load.runs(tmp_path), tmp_path / "two.png")


@pytest.mark.parametrize("preset", plot.PRESETS)
def test_nothing_to_draw_writes_nothing(tmp_path: Path, preset: str) -> None:
    write_status(tmp_path, "a", "failed")
    assert plot.PRESETS[preset](load.runs(tmp_path), tmp_path / "no.png") is None
    assert not (tmp_path / "no.png").exists()


def test_other_suffixes_are_refused(sweep: list[load.Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fig\.pnq must end in one of \.png, \.pdf, \.svg \(did you mean \.png\?\)"):
        plot.curves(sweep, tmp_path / "fig.pnq")


def test_a_folder_that_cannot_be_is_named(sweep: list[load.Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/fig\.png cannot be written"):
        plot.curves(sweep, tmp_path / "file" / "fig.png")
