from __future__ import annotations

from pathlib import Path

import pytest
from bench_fixture import kernel_rows, scaling_rows, step_rows

from dstrun.bench import result
from dstrun.option import ConfigError
from dstrun.report import bench
from dstrun.report.figure import sheet

ROWS = {"kernel": kernel_rows, "step": step_rows, "scaling": scaling_rows}


def written(name: str, folder: Path) -> Path:
    file = folder / f"{name}.csv"
    result.write(name, ROWS[name](), file)
    return file


@pytest.mark.parametrize("name", ROWS)
def test_a_file_becomes_a_figure(name: str, tmp_path: Path) -> None:
    rows = bench.read(written(name, tmp_path))
    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
        assert bench.plot(rows, one) == one
        bench.plot(rows, two)
        assert one.read_bytes().startswith(start)
        assert one.read_bytes() == two.read_bytes()


def test_kernel_has_a_line_a_layer_in_two_panels(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_kernel(bench.read(written("kernel", tmp_path)))
    assert [axis.get_title() for axis in figure.axes] == ["convolutions", "linear"]
    for axis, label, ratios in zip(figure.axes, ("R56-s3", "4096-4096"), ([3.0, 6.0], [2.5, 5.0]), strict=True):
        (handle,), labels = axis.get_legend_handles_labels()
        assert labels == [label]
        assert list(handle.lines[0].get_ydata()) == pytest.approx(ratios)
        assert [text.get_text() for text in axis.get_xticklabels()] == ["90", "99.5"]


def test_scaling_has_time_and_memory(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_scaling(bench.read(written("scaling", tmp_path)))
    time, memory = figure.axes
    handles, labels = time.get_legend_handles_labels()
    assert labels == ["masked", "sparse"]
    assert [len(handle.lines[0].get_xdata()) for handle in handles] == [2, 3]
    assert handles[1].lines[0].get_ydata()[0] == pytest.approx(1.024)
    assert len(memory.get_lines()) == 4
    assert time.get_xscale() == time.get_yscale() == memory.get_yscale() == "log"


def test_step_has_bars_for_steps_and_updates(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_step(bench.read(written("step", tmp_path)))
    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([300, 200, 200, 450, 450])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["dense", "masked\ngse", "sparse\ngse"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "bench,median\nkernel,fast\n", "bench\npie\n"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text(text)
    if not text:
        assert bench.plot(bench.read(file), tmp_path / "no.png") is None
        return
    with pytest.raises(ConfigError, match="is no file of dstrun bench"):
        bench.read(file)


def test_command_line_draws(dstrun, tmp_path: Path) -> None:
    written("kernel", tmp_path)
    assert dstrun("plot", "bench", "kernel.csv").stdout == "bench-kernel.png\n"
    assert dstrun("plot", "bench", check=False).returncode == 2
    assert dstrun("plot", "bench", "absent.csv", check=False).returncode == 2
    (tmp_path / "empty.csv").write_text("bench\n")
    assert dstrun("plot", "bench", "empty.csv", check=False).returncode == 3


def test_command_line_measures_and_says_what_is_next(dstrun, tmp_path: Path) -> None:
    words = ["--layers", "gseVGG128@4", "--sparsity", "0.99", "--rounds", "2", "--batch", "16", "--threads", "1"]
    done = dstrun("bench", "kernel", *words)
    assert done.stdout.startswith("| layer ")
    assert "next: dstrun plot bench results/bench/kernel.csv" in done.stderr
    rows = bench.read(tmp_path / "results" / "bench" / "kernel.csv")
    assert {row["pass"] for row in rows} == {"forward", "input gradient", "weight gradient", "sum"}
    assert dstrun("plot", "bench", "results/bench/kernel.csv", "--out", "a.pdf").stdout == "a.pdf\n"
