"""Results of a benchmark as a table: one row per case, times in milliseconds, ratios with quartiles. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dstrun.bench.result import CASE
from dstrun.report.format import Column

Rows = Sequence[dict[str, Any]]
Table = tuple[list[dict[str, Any]], list[Column], list[str]]
"""Rows, columns, and the notes below them."""

PAIRED = "ratios: median [quartiles] over rounds, time over the sparse kernels' time in the same round"


def kernel(found: Rows) -> Table:
    """Show the sparse passes, the better dense layout, and every other implementation's sum over ours."""
    others = list(dict.fromkeys(row["implementation"] for row in found))
    others = [name for name in others if name != "sparse" and not name.startswith("dense")]
    shown = []
    for case, rows in cases("kernel", found):
        ours = {row["pass"]: row for row in rows if row["implementation"] == "sparse"}
        dense = better_dense(rows)
        sums = {row["implementation"]: row for row in rows if row["pass"] == "sum"}
        shown.append(
            {
                "layer": case["layer"],
                "sparsity": percent(case["sparsity"]),
                **{key: milliseconds(row) for key, row in ours.items()},
                "dense": milliseconds(dense),
                "layout": dense["implementation"].removeprefix("dense").strip() or "contiguous",
                "dense / sparse": ratio(dense),
                **{f"{name} / sparse": ratio(sums.get(name)) for name in others},
            }
        )
    passes = [Column(key, f"{key} ms", "number", 2) for key in ("forward", "input gradient", "weight gradient", "sum")]
    columns = [Column("layer"), Column("sparsity"), *passes]
    columns += [Column("dense", "dense ms", "number", 2), Column("layout"), Column("dense / sparse")]
    columns += [Column(f"{name} / sparse") for name in others]
    notes = ["forward to sum: the sparse kernels; dense: the sum in the better of its two memory layouts", PAIRED]
    return shown, columns, notes


def better_dense(rows: Rows) -> dict[str, Any]:
    """Choose the dense layout whose passes together take the least, of one case."""
    sums = [row for row in rows if row["pass"] == "sum" and row["implementation"].startswith("dense")]
    return min(sums, key=lambda row: row["median"])


def step(found: Rows) -> Table:
    """Show the seconds and the peak of ordinary steps and of updates side by side."""
    shown = []
    for case, rows in cases("step", found):
        for name in dict.fromkeys(row["implementation"] for row in rows):
            line: dict[str, Any] = {**case, "sparsity": percent(case["sparsity"]), "implementation": name}
            for row in rows:
                if row["implementation"] == name and row["pass"] in ("step", "update"):
                    key = row["pass"]
                    line |= {key: milliseconds(row), f"{key} peak": row["bytes"], f"{key} ratio": ratio(row)}
            shown.append(line)
    columns = [Column("model"), Column("sparsity"), Column("implementation")]
    for key in ("step", "update"):
        columns += [Column(key, f"{key} ms", "number", 1), Column(f"{key} ratio", f"{key} / sparse gse's")]
        columns += [Column(f"{key} peak", kind="bytes")]
    notes = ["update: forward and backward pass with a topology update in place of the optimizer step"]
    return shown, columns, [*notes, PAIRED.replace("the sparse kernels'", "sparse gse's")]


def scaling(found: Rows) -> Table:
    """Show time and memory by width, and below with which power of it they grow."""
    names = list(dict.fromkeys(row["implementation"] for row in found))
    shown, remarks = [], []
    for case, rows in cases("scaling", found):
        line: dict[str, Any] = dict(case)
        for row in rows:
            name = row["implementation"]
            line |= {
                f"{name} ms": milliseconds(row),
                f"{name} bytes": row["bytes"],
                f"{name} resident": row["resident_bytes"],
            }
            if row.get("note"):
                remarks.append(f"{name}, n={case['n']}: {row['note']}")
        shown.append(line)
    columns = [Column("n", kind="number"), Column("active", kind="number")]
    for name in names:
        columns += [Column(f"{name} ms", kind="number"), Column(f"{name} bytes", f"{name} holds", "bytes")]
        columns += [Column(f"{name} resident", f"{name} process", "bytes")]
    on_gpu = found[0].get("device") == "cuda"
    peak = "peak of what PyTorch allocates on the GPU in a step" if on_gpu else "peak resident memory"
    notes = [
        f"holds: weights, gradients, optimizer state, indices and activations; process: {peak}",
        *(f"{name}: {said}" for name in names if (said := growth([r for r in found if r["implementation"] == name]))),
    ]
    return shown, columns, notes + remarks


def infer(found: Rows) -> Table:
    """Show the milliseconds of a pass, and the others' over ours."""
    names = list(dict.fromkeys(row["implementation"] for row in found))
    shown = []
    for case, rows in cases("infer", found):
        line: dict[str, Any] = {**case, "sparsity": percent(case["sparsity"])}
        for row in rows:
            line |= {row["implementation"]: milliseconds(row), f"{row['implementation']} / sparse": ratio(row)}
        shown.append(line)
    columns = [Column("network"), Column("batch", kind="number", digits=0), Column("sparsity")]
    columns += [Column(name, f"{name} ms", "number", 3) for name in names]
    columns += [Column(f"{name} / sparse") for name in names if name != "sparse"]
    notes = ["dense and onnxruntime: the same weights, zeros included, so that sparsity does not change their time"]
    return shown, columns, [*notes, PAIRED]


def machine(found: Rows) -> Table:
    """Show gigabytes per second by size, and the multiply-adds in a note."""
    shown = [
        {"kilobytes": case["kilobytes"], **{row["implementation"]: rate(row) for row in rows}}
        for case, rows in cases("machine", found)
        if case["kilobytes"]
    ]
    columns = [Column("kilobytes", "kB per thread", "number", 0)]
    columns += [Column("read", "read GB/s", "number", 0), Column("copy", "copy GB/s", "number", 0)]
    notes = ["copy: what is read and what is written count", "all threads together, median over rounds"]
    done = [rate(row) for row in found if row["implementation"] == "multiply-add"]
    return shown, columns, [*(f"float32 multiply-adds: {each:.0f} billion per second" for each in done), *notes]


def rate(row: dict[str, Any]) -> float:
    """Return billions of bytes, or of multiply-adds, per second."""
    return row["bytes"] / row["median"] / 1e9


def where(found: Rows) -> str:
    """Return on what the rows were measured."""
    row = found[0]
    return f"{row['processor']}, {row['threads']} threads, torch {row['torch']}"


def growth(rows: Rows) -> str:
    """Return with which power of n time and memory grow, of one implementation; nothing for a single width."""
    parts = []
    for key, what in (("median", "time"), ("bytes", "memory")):
        points = [(row["n"], row[key]) for row in rows if row.get(key)]
        if len(points) < 2:
            return ""
        parts.append(f"{what} ~ n^{exponent(points):.2f}")
    sizes = [row["n"] for row in rows if row.get("median")]
    return f"{', '.join(parts)} (least squares from n={min(sizes)} to {max(sizes)})"


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """Fit the slope of log y against log x by least squares."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle_x, middle_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)


def ratio(row: dict[str, Any] | None) -> str | None:
    """Format a paired ratio with its quartiles, ``3.4x [3.1-3.9]``, or that it comes from one round alone."""
    if row is None or row.get("x_median") is None:
        return None
    if row["rounds"] == 1:
        return f"{row['x_median']:.{1 if row['x_median'] >= 1 else 2}f}x (1 round)"
    middle, low, high = (f"{row[key]:.{1 if row[key] >= 1 else 2}f}" for key in ("x_median", "x_q1", "x_q3"))
    return f"{middle}x [{low}-{high}]"


def percent(sparsity: float) -> str:
    """Format a sparsity, ``98%``."""
    return f"{100 * sparsity:g}%"


def milliseconds(row: dict[str, Any]) -> float | None:
    """Return the median of a row; None where nothing was timed."""
    return None if row.get("median") is None else 1000 * row["median"]


def cases(bench: str, found: Rows) -> Iterable[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Group the rows by what they were measured on, in their order."""
    cases: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        cases.setdefault(tuple(row[key] for key in CASE[bench]), []).append(row)
    return ((dict(zip(CASE[bench], key, strict=True)), rows) for key, rows in cases.items())


TABLES: dict[str, Callable[[Rows], Table]] = {
    "kernel": kernel,
    "step": step,
    "scaling": scaling,
    "infer": infer,
    "machine": machine,
}
