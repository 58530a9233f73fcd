from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from report_fixture import TOP1, record_of, write, write_status

from dstrun.report import load, table
from dstrun.report.table.cells import Options
from dstrun.system.trouble import ConfigError

MD = """\
### resnet56 on cifar10 (test)

| method |          dense |                90% |                95% |                      98% |
| ------ | -------------: | -----------------: | -----------------: | -----------------------: |
| dense  | 93.0 ± 0.1 (3) |                  - |                  - |                        - |
| set    |              - |     90.4 ± 0.3 (3) |     88.5 ± 0.5 (3) |           84.8 ± 0.5 (3) |
| rigl   |              - |     91.1 ± 0.2 (3) |     89.5 ± 0.4 (3) |           86.2 ± 0.3 (3) |
| gse    |              - | **91.2 ± 0.2** (3) | **90.0 ± 0.2** (3) | **87.3 ± 0.2** (2 of 3)† |

- (n of N): n seeds have finished, of N that were started or that another cell of the block has
- † not finished: resnet56-cifar10-gse-s0.98-seed2-77aa01 (failed)
- top-1 accuracy in percent on the test split: \
mean ± sample standard deviation over seeds (n) at the final epoch, not the best epoch on test
- all rows: backend masked (simulated on dense storage)"""

LATEX = r"""% In the preamble: \usepackage[utf8]{inputenc} \usepackage[T1]{fontenc}
% \usepackage{booktabs,multirow,threeparttable,graphicx}

% resnet56 on cifar10 (test)
\begin{table}[t]
\centering\small\setlength{\tabcolsep}{4pt}
\sbox0{\begin{tabular}{lrrrr}
\toprule
 & \multicolumn{4}{c}{Sparsity} \\
\cmidrule(lr){2-5}
Method & Dense & 90\% & 95\% & 98\% \\
\midrule
Dense & $93.0 \pm 0.1$ (3) & -- & -- & -- \\
SET & -- & $90.4 \pm 0.3$ (3) & $88.5 \pm 0.5$ (3) & $84.8 \pm 0.5$ (3) \\
RigL & -- & $91.1 \pm 0.2$ (3) & $89.5 \pm 0.4$ (3) & $86.2 \pm 0.3$ (3) \\
GSE & -- & $\mathbf{91.2 \pm 0.2}$ (3) & $\mathbf{90.0 \pm 0.2}$ (3) & $\mathbf{87.3 \pm 0.2}$ (2 of 3)$\dagger$ \\
\bottomrule
\end{tabular}}% measured first, and made smaller where it is wider than its column
\begin{threeparttable}
\caption{ResNet-56 on CIFAR-10 (test)}
\label{tab:accuracy-resnet56-on-cifar10-test}
"""


def test_accuracy_for_readers(sweep: list[load.Run]) -> None:
    built = table.build(sweep)
    assert built.render("md") == MD
    assert built.render("latex").startswith(LATEX)


def test_two_decimals(sweep: list[load.Run]) -> None:
    assert "88.50 ± 0.46 (3)" in table.build(sweep, options=Options(digits=2)).render()


def test_accuracy_for_programs(sweep: list[load.Run]) -> None:
    built = table.build(sweep)
    cells = json.loads(built.render("json"))
    assert len(cells) == len(TOP1)
    cell = next(c for c in cells if c["method"] == "gse" and c["sparsity"] == 0.98)
    assert cell == {
        "model": "resnet56", "dataset": "cifar10", "split": "test", "method": "gse", "sparsity": 0.98, "realised": 0.98,
        "backend": "masked", "value": "accuracy.top1", "mean": 87.35, "std": stdev([87.2, 87.5]), "n": 2, "of": 3,
        "seeds": [0, 1],
        "runs": ["resnet56-cifar10-gse-s0.98-seed0-3f9c2a", "resnet56-cifar10-gse-s0.98-seed1-3f9c2a"],
        "unfinished": ["resnet56-cifar10-gse-s0.98-seed2-77aa01"],
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(built.render("csv"))))
    assert [(row["method"], float(row["mean"])) for row in rows] == [(c["method"], c["mean"]) for c in cells]
    assert rows[0]["runs"].split() == cells[0]["runs"]


def test_runs_of_other_length_are_never_averaged(results: Path) -> None:
    for seed in range(3):
        write(results, record_of("gse", 0.98, seed, 88.0 + seed, epochs=60), folder=f"long{seed}")
    text = table.build(load.runs(results)).render()
    assert "| gse (epochs=30) |" in text
    row = next(line for line in text.splitlines() if line.startswith("| gse (epochs=60) |"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == ["-", "-", "-", "**89.0 ± 1.0** (3)"]
    # The failed run may be of either length, but only one of them lacks its seed.
    assert "87.3 ± 0.2 (2 of 3)† |" in text


def test_ties_as_shown_are_all_bold_and_a_lone_row_is_not(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.01))
    write(tmp_path, record_of("rigl", 0.9, 0, 89.99))
    write(tmp_path, record_of("rigl", 0.95, 0, 89.0))
    text = table.build(load.runs(tmp_path)).render()
    assert text.count("**90.0** (1)") == 2
    assert "**89.0**" not in text


def test_a_cell_with_nothing_finished_is_shown(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write_status(tmp_path, "resnet56-cifar10-set-s0.98-seed0-aaaaaa", "running")
    write_status(tmp_path, "resnet56-cifar10-gse-grabo-s0.9-seed0-bbbbbb", "diverged")
    write_status(tmp_path, "vgg16-cifar10-set-s0.9-seed0-cccccc", "failed")
    text = table.build(load.runs(tmp_path)).render()
    assert "| set       | 90.0 (1) | - † |" in text
    assert "| gse-grabo |      - † |   - |" in text
    assert "- not finished and in no cell: vgg16-cifar10-set-s0.9-seed0-cccccc (failed)" in text
    empty = json.loads(table.build(load.runs(tmp_path)).render("json"))[-1]
    assert (empty["method"], empty["mean"], empty["n"], empty["of"], empty["runs"]) == ("set", None, 0, 1, [])


def test_a_seed_finished_elsewhere_flags_nothing(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write_status(tmp_path, "resnet56-cifar10-set-s0.9-seed0-aaaaaa", "failed")
    text = table.build(load.runs(tmp_path)).render()
    assert "†" not in text
    assert "in no cell: resnet56-cifar10-set-s0.9-seed0-aaaaaa (failed)" in text


def test_repeats_are_told_of(results: Path) -> None:
    for seed in range(3):
        write(results, record_of("set", 0.9, seed, 90.4, experiment="second"))
    text = table.build(load.runs(results)).render()
    assert "90.4 ± 0.3 (3)" in text
    assert (
        "- left out, as they duplicate configuration and seed of another run: resnet56-cifar10-set-s0.9-seed0" in text
    )


def test_backends_stand_apart(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write(tmp_path, record_of("set", 0.9, 0, 90.0, backend="sparse"), folder="other")
    text = table.build(load.runs(tmp_path)).render()
    assert "| set (backend=masked) |" in text
    assert "| set (backend=sparse) |" in text
    assert text.endswith("- backends: masked (simulated on dense storage), sparse")


def test_flops(sweep: list[load.Run]) -> None:
    built = table.build(sweep, "flops")
    lines = built.render().splitlines()
    assert [head.strip() for head in lines[2].strip("|").split("|")] == [
        "method", "sparsity", "top-1", "train FLOPs", "train, x dense", "train FLOPs, x rigl", "executed, x dense",
        "inference FLOPs", "inference, x dense",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("| rigl   | 90%"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "rigl", "90%", "91.1 ± 0.2 (3)", "1.10e14", "0.10x", "1x", "1x", "2.50e7", "0.10x",
    ]  # fmt: skip
    assert "- flops: MAC = 2, conv and linear only" in lines


def test_memory(sweep: list[load.Run]) -> None:
    built = table.build(sweep, "memory")
    lines = built.render().splitlines()
    assert lines[2] == "| method | sparsity |    peak | peak, x dense |"  # nothing else is on record
    assert "| rigl   | 90%      | 64.4 MB |        1.000x |" in lines
    assert "| set    | 90%      | 61.1 MB |        0.948x |" in lines
    assert "- memory: cpu allocator" in lines
    cells = {c["value"]: c for c in json.loads(built.render("json")) if (c["method"], c["sparsity"]) == ("rigl", 0.9)}
    assert cells["memory.peak_bytes"]["mean"] == 64_412_072
    assert (cells["memory.peak_bytes"]["n"], len(cells["memory.peak_bytes"]["runs"])) == (3, 3)
    assert cells["memory.peak_bytes/dense"]["mean"] == pytest.approx(1)


def test_cost(sweep: list[load.Run]) -> None:
    lines = table.build(sweep, "cost").render().splitlines()
    row = next(line for line in lines if line.startswith("| rigl   | 90%"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "rigl", "90%", "91.1 ± 0.2 (3)", "30", "16m 00s", "15m 00s", "1x", "31.7 s", "81.2 ms", "100 ms",
    ]  # fmt: skip
    assert "- seconds: cpu" in lines


def test_best_is_of_one_sparsity_in_rows_too(sweep: list[load.Run]) -> None:
    lines = table.build(sweep, "cost").render().splitlines()
    assert [line.split("|")[1:3] for line in lines if "**" in line] == [
        [" gse    ", " 90%      "], [" gse    ", " 95%      "], [" gse    ", " 98%      "],
    ]  # fmt: skip


def test_memory_measured_in_two_ways_is_not_averaged(tmp_path: Path) -> None:
    record = record_of("set", 0.9, 1, 90.0)
    record["memory"]["how"] = "cuda allocator"
    write(tmp_path, record)
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    built = table.build(load.runs(tmp_path), "memory")
    assert {cell["mean"] for cell in built.cells} == {None}
    assert "- memory: cpu allocator; cuda allocator" in built.render()


def test_costs_that_were_not_recorded_are_unknown(tmp_path: Path) -> None:
    record = record_of("set", 0.9, 0, 90.0)
    record["memory"]["peak_bytes"] = None
    write(tmp_path, record)
    write(tmp_path, record_of("set", 0.9, 1, 90.0))
    cells = {cell["value"]: cell["mean"] for cell in table.build(load.runs(tmp_path), "memory").cells}
    assert cells["memory.peak_bytes"] is None


def test_nothing_finished_is_an_empty_table(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "failed")
    for preset in table.PRESETS:
        built = table.build(load.runs(tmp_path), preset)
        assert built.cells == []
        assert built.render("json") == "[]"
    assert table.build(load.runs(tmp_path)).render() == "- not finished and in no cell: a (failed)"


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"--preset acuracy is not known: choose accuracy, memory, flops, cost .*mean accuracy\?"
    ):
        table.build([], "acuracy")


@pytest.mark.parametrize("change", [{"device": "NVIDIA H100"}, {"threads": 8}, {"processes": 4}, {"together": 4}])
def test_seconds_of_several_devices_are_not_averaged_and_accuracies_are(tmp_path: Path, change: dict[str, Any]) -> None:
    for seed, env in enumerate(({}, change)):
        record = record_of("gse", 0.98, seed, 87.0)
        record["env"] |= env
        write(tmp_path, record)
    built = table.build(load.runs(tmp_path), "cost")
    shown = {cell["value"]: cell["mean"] for cell in built.cells}
    assert shown["accuracy.top1"] == 87.0
    assert {value: mean for value, mean in shown.items() if value.startswith("seconds.")} == dict.fromkeys(
        (value for value in shown if value.startswith("seconds.")), None
    )
    (note,) = [note for note in built.notes if "so not averaged" in note]
    assert note.startswith("seconds: measured in several ways, so not averaged (accuracies are): ")
    assert "cpu, 2 threads" in note


def test_seconds_are_held_against_those_of_the_same_device(tmp_path: Path) -> None:
    for device in ("cpu", "NVIDIA H100"):
        record = record_of("gse", 0.98, 0, 87.0, experiment=device)
        record["env"]["device"] = device
        record["config"]["epochs"] = 30 if device == "cpu" else 31
        write(tmp_path, record)
    for epochs in (30, 31):
        write(tmp_path, record_of("dense", 0.0, 0, 93.0, epochs=epochs), folder=f"dense{epochs}")
    cells = table.build(load.runs(tmp_path), options=Options(values="seconds.train/dense")).cells
    assert sorted((cell["method"], cell["mean"]) for cell in cells if cell["method"].startswith("gse")) == [
        ("gse (epochs=30)", 1.0), ("gse (epochs=31)", None),
    ]  # fmt: skip
