from __future__ import annotations

import csv
from pathlib import Path

import pytest
from bench_fixture import infer_rows, kernel_rows, machine_rows, scaling_rows, step_rows

from dstrun.backend import auto
from dstrun.bench import result, summary, table
from dstrun.report.format import render
from dstrun.system.trouble import ConfigError

ROWS = {"kernel": kernel_rows, "step": step_rows, "scaling": scaling_rows, "infer": infer_rows, "machine": machine_rows}


def test_kernel_compares_with_the_better_dense_layout() -> None:
    shown, columns, _ = table.kernel(kernel_rows())
    first, second, linear, _ = shown
    assert (first["layer"], first["sparsity"], second["sparsity"]) == ("R56-s3", "90%", "99.5%")
    assert first["layout"] == "channels_last"
    assert first["dense / sparse"] == "3.0x [3.0-3.0]"
    assert second["dense / sparse"] == "6.0x [6.0-6.0]"
    assert first["forward"] == pytest.approx(2.0)
    assert first["sum"] == pytest.approx(6.0)
    assert first["dense"] == pytest.approx(18.0)
    assert first["torch csr / sparse"] is None
    assert linear["layout"] == "contiguous"
    assert linear["torch csr / sparse"] == "1.5x [1.5-1.5]"
    assert linear["torch coo / sparse"] == "2.0x [2.0-2.0]"
    text = render(shown, columns)
    assert "| R56-s3    | 90%      |       2.00 |" in text
    assert "torch csr / sparse" in text.splitlines()[0]


def test_a_short_kernel_table_has_a_column_a_sparsity() -> None:
    shown, columns, _ = summary.kernel(kernel_rows())
    assert [column.key for column in columns] == ["layer", "format", "90%", "99.5%"]
    assert shown[0] == {
        "layer": "ResNet-56, stage 3 (R56-s3)", "format": "dense", "90%": "3.0x [3.0-3.0]", "99.5%": "6.0x [6.0-6.0]"
    }  # fmt: skip
    linear = {row["format"]: row["90%"] for row in shown if row["layer"] == "4,096 to 4,096"}
    assert linear == {"dense": "2.5x [2.5-2.5]", "torch coo": "2.0x [2.0-2.0]", "torch csr": "1.5x [1.5-1.5]"}


def test_a_short_step_table_puts_masked_beside_sparse() -> None:
    (line,), _, notes = summary.step(step_rows())
    masked, sparse = (
        next(row for row in step_rows() if (row["implementation"], row["pass"]) == (name, "step"))
        for name in ("masked gse", "sparse gse")
    )
    assert (line["masked"], line["sparse"]) == (1000 * masked["median"], 1000 * sparse["median"])
    assert (line["masked peak"], line["sparse peak"]) == (masked["bytes"], sparse["bytes"])
    assert line["ratio"] == table.ratio(masked)
    assert "batch 128" in notes[0]
    alone = [row for row in step_rows() if row["implementation"] != "masked gse"]
    assert summary.step(alone)[0][0]["ratio"] is None


def test_a_short_scaling_table_says_where_an_implementation_ends() -> None:
    shown, columns, notes = summary.scaling(scaling_rows())
    assert [column.heading for column in columns][:3] == ["n", "masked", "masked holds"]
    assert shown[-1]["masked median"] is None
    assert shown[-1]["sparse median"] > 0
    assert any(note.startswith("masked: time ~ n^2.00") and "n=4096 not tried: too large" in note for note in notes)


def test_every_bench_has_a_short_table() -> None:
    assert summary.SUMMARIES.keys() == table.TABLES.keys() == result.CASE.keys()


def test_infer_compares_with_both_dense_ones() -> None:
    shown, columns, _ = table.infer(infer_rows())
    (line,) = [row for row in shown if (row["network"], row["sparsity"], row["batch"]) == ("resnet56", "95%", 128)]
    assert line["dense"] == pytest.approx(300.0)
    assert line["dense / sparse"] == "3.0x [3.0-3.0]"
    assert line["onnxruntime / sparse"] == "1.5x [1.5-1.5]"
    assert "sparse / sparse" not in render(shown, columns)


def test_a_single_round_is_no_spread() -> None:
    row = {"x_median": 0.5, "x_q1": 0.5, "x_q3": 0.5, "rounds": 1}
    assert table.ratio(row) == "0.50x (1 round)"
    assert table.ratio({**row, "rounds": 3, "x_q3": 2.0}) == "0.50x [0.50-2.0]"
    assert table.ratio(None) is None


def test_the_machine_is_said() -> None:
    assert table.where(step_rows()) == "A processor, model 1, 2 threads, torch 2.9.0"


def test_step_puts_step_and_update_side_by_side() -> None:
    shown, columns, _ = table.step(step_rows())
    assert [row["implementation"] for row in shown] == ["dense", "masked gse", "sparse gse"]
    dense, masked, _ = shown
    assert dense["step ratio"] == "1.5x [1.5-1.5]"
    assert "update" not in dense
    assert masked["update"] == pytest.approx(450)
    assert "7.00 MB" in render(shown, columns)


def test_scaling_fits_exponents_and_says_what_was_left_out() -> None:
    shown, columns, notes = table.scaling(scaling_rows())
    assert [row["n"] for row in shown] == [1024, 2048, 4096]
    assert shown[-1]["masked ms"] is None
    assert "masked, n=4096: not tried: too large" in notes
    assert "masked: time ~ n^2.00, memory ~ n^2.00 (least squares from n=1024 to 2048)" in notes
    assert "sparse: time ~ n^1.00, memory ~ n^1.00 (least squares from n=1024 to 4096)" in notes
    assert render(shown, columns).splitlines()[-1].startswith("| 4096 | 1572864 |         - |")


@pytest.mark.parametrize(("device", "peak"), [("cpu", "resident memory"), ("cuda", "PyTorch allocates on the GPU")])
def test_scaling_says_what_a_peak_is(device: str, peak: str) -> None:
    rows = [row | {"device": device} for row in scaling_rows()]
    assert peak in table.scaling(rows)[2][0]


def test_exponent_is_the_least_squares_slope() -> None:
    assert table.exponent([(1, 5), (10, 5), (100, 5)]) == pytest.approx(0)
    assert table.exponent([(1, 1), (10, 1000)]) == pytest.approx(3)
    assert table.exponent([(1, 1), (10, 1), (100, 1000)]) == pytest.approx(1.5)


def test_one_width_has_no_exponent() -> None:
    assert table.growth(scaling_rows()[:1]) == ""


@pytest.mark.parametrize("bench", ROWS)
def test_file_has_one_row_a_measurement(bench: str, tmp_path: Path) -> None:
    file, rows = tmp_path / "new" / "rows.csv", ROWS[bench]()
    result.write(bench, rows, file)
    with file.open(newline="") as lines:
        read = list(csv.DictReader(lines))
    assert len(read) == len(rows)
    assert list(read[0]) == [column.key for column in result.columns(bench)]
    for found, row in zip(read, rows, strict=True):
        assert set(row) <= set(found)
        assert found == {key: "" if row.get(key) is None else str(row[key]) for key in found}


@pytest.mark.parametrize("bench", ROWS)
def test_what_was_written_is_read(bench: str, tmp_path: Path) -> None:
    file, rows = tmp_path / "rows.csv", ROWS[bench]()
    result.write(bench, rows, file)
    found = result.measured([file, str(file)])
    assert found[: len(rows)] == found[len(rows) :]
    for read, row in zip(found, rows, strict=False):
        assert {key: read[key] for key in row} == {key: value for key, value in row.items()}


def test_a_file_that_cannot_be_written_is_said() -> None:
    with pytest.raises(ConfigError, match=r"--out /proc/x/a\.csv cannot be written"):
        result.write("kernel", [], Path("/proc/x/a.csv"))


def test_the_machine_is_named_without_a_date() -> None:
    where = result.machine()
    assert set(where) == {"device", "threads", "torch", "processor"}
    assert where["processor"] == auto.processor() != ""


def test_machine_has_gigabytes_and_multiply_adds_per_second() -> None:
    shown, _, notes = table.machine(machine_rows())
    assert shown == [{"kilobytes": 16, "read": 400, "copy": 200}, {"kilobytes": 4096, "read": 200, "copy": 100}]
    assert notes[0] == "float32 multiply-adds: 50 billion per second"
