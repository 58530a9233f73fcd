from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from bench_fixture import infer_rows, kernel_rows, linear_rows, machine_rows, scaling_rows, step_rows

from dstrun.bench import result
from dstrun.report import bench
from dstrun.report.figure import sheet
from dstrun.system.trouble import ConfigError

ROWS = {
    "kernel": kernel_rows,
    "linear": linear_rows,
    "step": step_rows,
    "scaling": scaling_rows,
    "infer": infer_rows,
    "machine": machine_rows,
}


def written(name: str, folder: Path) -> Path:
    file, rows = folder / f"{name}.csv", ROWS[name]()
    result.write(rows[0]["bench"], rows, file)
    return file


@pytest.mark.parametrize("name", ROWS)
def test_a_file_becomes_a_figure(name: str, tmp_path: Path) -> None:
    rows = result.read(written(name, tmp_path))
    first, again = ([tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"] for name in ("first", "again"))
    assert bench.plot(rows, *first) == first[0]
    bench.plot(rows, *again)
    (png, pdf), same = ([file.read_bytes() for file in files] for files in (first, again))
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert [png, pdf] == same
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_kernel_has_a_line_a_layer_in_two_panels(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_kernel(result.read(written("kernel", tmp_path)))
    assert [axis.get_title() for axis in figure.axes] == ["convolutions", "linear"]
    for axis, label, ratios in zip(
        figure.axes, ("ResNet-56, stage 3 (R56-s3)", "4,096 to 4,096"), ([3.0, 6.0], [2.5, 5.0]), strict=True
    ):
        (handle,), labels = axis.get_legend_handles_labels()
        assert labels == [label]
        assert list(handle.lines[0].get_ydata()) == pytest.approx(ratios)
        assert [text.get_text() for text in axis.get_xticklabels()] == ["90", "99.5"]


def test_linear_has_times_over_sparsity_and_over_width(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_kernel(result.read(written("linear", tmp_path)))
    titles = ["width 1,024", "width 4,096", "90% sparse", "99% sparse"]
    assert [axis.get_title() for axis in figure.axes] == [*titles, "", "", "", ""]
    for place, axis in enumerate(figure.axes):
        handles, labels = axis.get_legend_handles_labels()
        assert labels == ["dense", "torch coo", "torch csr", "sparse"]
        lines = {label: handle.lines[0] for label, handle in zip(labels, handles, strict=True)}
        products, n, level = (1 if place < 4 else 3), (1024, 4096)[place % 2], (0.9, 0.99)[place % 2]
        if place % 4 < 2:
            at, dense, sparse = [0.01, 0.1, 0.5], [n * n] * 3, [n * n * density for density in (0.01, 0.1, 0.5)]
            ticks = ["50", "90", "99"]
        else:
            at, dense = [256, 1024, 4096], [size * size for size in (256, 1024, 4096)]
            sparse = [pairs * (1 - level) for pairs in dense]
            ticks = ["256", "1k", "4k"]
        assert [text.get_text() for text in axis.get_xticklabels()] == (ticks if place > 3 else [])
        for name, each in {"dense": dense, "torch coo": [4 * x for x in sparse], "sparse": sparse}.items():
            assert list(lines[name].get_xdata()) == pytest.approx(at)
            assert list(lines[name].get_ydata()) == pytest.approx([1e-6 * products * x for x in each])
        assert axis.get_xscale() == axis.get_yscale() == "log"
        assert axis.xaxis_inverted() == (place % 4 < 2)
        assert axis.get_ylim() == figure.axes[4 * (place // 4)].get_ylim()
        low, high = axis.get_ylim()
        assert all(low < y < high for line in lines.values() for y in line.get_ydata())


@pytest.mark.parametrize(
    ("layers", "levels", "titles"),
    [
        (["1024-1024"], [0.5, 0.9], ["width 1,024", ""]),
        (["256-256", "1024-1024"], [0.9], ["90% sparse", ""]),
        (["1024-1024"], [0.9], ["linear"]),
        (["1024-1024", "1024-4096"], [0.9], ["linear"]),
    ],
)
def test_times_are_drawn_over_what_there_are_several_of(layers, levels, titles) -> None:
    rows = [row for row in linear_rows() if row["sparsity"] in levels]
    rows += [{**row, "layer": "1024-4096"} for row in rows if row["layer"] == "1024-1024"]
    with sheet():
        figure = bench.draw_kernel([row for row in rows if row["layer"] in layers])
    assert [axis.get_title() for axis in figure.axes] == titles


def test_lines_are_told_apart_without_color() -> None:
    for one, two in combinations(bench.IMPLEMENTATIONS.values(), 2):
        assert one["marker"] != two["marker"]
        assert one["linestyle"] != two["linestyle"]
    for one, two in combinations(bench.LAYERS, 2):
        assert one["marker"] != two["marker"]
    for one, two in zip(bench.LAYERS, bench.LAYERS[1:], strict=False):
        assert one["linestyle"] != two["linestyle"]


def test_scaling_has_time_and_memory(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_scaling(result.read(written("scaling", tmp_path)))
    time, memory = figure.axes
    handles, labels = time.get_legend_handles_labels()
    assert labels == ["masked", "sparse"]
    assert [len(handle.lines[0].get_xdata()) for handle in handles] == [2, 3]
    assert handles[1].lines[0].get_ydata()[0] == pytest.approx(1.024)
    assert len(memory.get_lines()) == 4
    assert time.get_xscale() == time.get_yscale() == memory.get_yscale() == "log"


def test_step_has_bars_for_steps_and_updates(tmp_path: Path) -> None:
    with sheet():
        figure = bench.draw_step(result.read(written("step", tmp_path)))
    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([300, 200, 200, 450, 450])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["Dense", "masked\nGSE", "sparse\nGSE"]


REFUSED = {
    "": "",
    "a,b\n1,2\n": "is not a file of dstrun bench: no column bench",
    "name,value\ncopy,4\n": "is not a file of dstrun bench: no column bench",
    "bench\npie\n": "is not a file of dstrun bench: no column bench",
    "bench,median\nkernel,fast\n": "is damaged: could not convert string to float: 'fast'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text(text)
    if not text:
        assert bench.plot(result.read(file), tmp_path / "no.png") is None
        return
    with pytest.raises(ConfigError, match=re.escape(REFUSED[text])):
        result.read(file)


def test_command_line_draws(dstrun, tmp_path: Path) -> None:
    written("kernel", tmp_path)
    assert dstrun("plot", "bench", "kernel.csv").stdout == "bench-kernel.png\n"
    (tmp_path / "empty.csv").write_text("bench\n")
    for verb in ("plot bench", "table"):
        assert dstrun(*verb.split(), "absent.csv", check=False).returncode == 2
        assert dstrun(*verb.split(), "kernel.csv", "results", check=False).returncode == 2
        assert dstrun(*verb.split(), "empty.csv", check=False).returncode == 3
    assert dstrun("plot", "bench", check=False).returncode == 2


def test_command_line_shows_a_table(dstrun, tmp_path: Path) -> None:
    written("step", tmp_path)
    written("scaling", tmp_path)
    short, whole = (dstrun("table", "step.csv", *more).stdout for more in ([], ["--runs"]))
    assert short.startswith("| model ")
    assert short.endswith("- A processor, model 1, 2 threads, torch 2.9.0\n")
    assert "dense" not in short
    assert "dense" in whole
    assert dstrun("table", "step.csv", "--format", "csv").stdout.count("\n") == 2
    for words, why in {
        ("step.csv", "scaling.csv"): "one bench at a time: these files are of scaling, step",
        ("step.csv", "--ci"): "--ci makes no sense with files of dstrun bench",
        ("step.csv", "--digits", "0"): "--digits makes no sense with files of dstrun bench",
        ("step.csv", "--names", "papers"): "--names makes no sense with files of dstrun bench",
        ("step.csv", "--preset", "flops"): "--preset makes no sense with files of dstrun bench",
        ("step.csv", "rows=model"): "end in .csv",
    }.items():
        refused = dstrun("table", *words, check=False)
        assert (refused.returncode, why in refused.stderr) == (2, True), refused.stderr


def test_command_line_measures_and_says_what_is_next(dstrun, tmp_path: Path) -> None:
    words = ["--layers", "gseVGG128@4", "--sparsity", "0.99", "--rounds", "2", "--batch", "16", "--threads", "1"]
    done = dstrun("bench", "kernel", *words)
    assert done.stdout.startswith("| layer ")
    assert "next: dstrun plot bench results/bench/kernel.csv" in done.stderr
    rows = result.read(tmp_path / "results" / "bench" / "kernel.csv")
    assert {row["pass"] for row in rows} == {"forward", "input gradient", "weight gradient", "sum"}
    assert dstrun("plot", "bench", "results/bench/kernel.csv", "--out", "a.pdf").stdout == "a.pdf\n"


def test_machine_has_a_line_of_reads_and_one_of_copies(tmp_path: Path) -> None:
    with sheet():
        (axis,) = bench.draw_machine(result.read(written("machine", tmp_path))).axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axis.get_lines()}
    assert lines == {"read": [400, 200], "copy": [200, 100]}
    assert [text.get_text() for text in axis.get_xticklabels()] == ["16 kB", "4 MB"]
