"""Files of ``dstrun bench`` as short tables for documents: a row per case, sparse beside the others. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dstrun.bench import table
from dstrun.bench.table import Rows, Table, better_dense, cases, milliseconds, percent, ratio
from dstrun.report.bench import layer
from dstrun.report.format import Column

MASKED, SPARSE = "masked gse", "sparse gse"
"""What ``dstrun bench step`` calls the two backends."""


def kernel(found: Rows) -> Table:
    """Show how many times longer a layer's three products take in other formats, a column per sparsity.

    Masked layers are left out: they take as long as dense ones, or longer.
    """
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for case, rows in cases("kernel", found):
        others = [row for row in rows if row["pass"] == "sum" and row["implementation"].startswith("torch")]
        for row in (better_dense(rows), *others):
            name = row["implementation"] if row in others else "dense"
            line = shown.setdefault((case["layer"], name), {"layer": layer(case["layer"]), "format": name})
            line[percent(case["sparsity"])] = ratio(row)
    levels = list(dict.fromkeys(percent(row["sparsity"]) for row in found))
    columns = [Column("layer", head=True), Column("format", head=True), *map(Column, levels)]
    return list(shown.values()), columns, ["dense: the better of its two memory layouts", table.PAIRED]


def step(found: Rows) -> Table:
    """Show time and peak memory of a training step, masked beside sparse."""
    shown = []
    for case, rows in cases("step", found):
        masked, sparse = (_step(rows, name) for name in (MASKED, SPARSE))
        shown.append(
            {
                **case,
                "sparsity": percent(case["sparsity"]),
                "masked": milliseconds(masked),
                "sparse": milliseconds(sparse),
                "ratio": ratio(masked),
                "masked peak": masked.get("bytes"),
                "sparse peak": sparse.get("bytes"),
            }
        )
    columns = [Column("model", head=True), Column("sparsity"), Column("masked", "masked ms", "number", 0)]
    columns += [Column("sparse", "sparse ms", "number", 0), Column("ratio", "masked / sparse")]
    columns += [Column(f"{name} peak", kind="bytes") for name in ("masked", "sparse")]
    return shown, columns, [f"training steps with GSE at batch {found[0]['batch']:g}, without topology updates", PAIRED]


def scaling(found: Rows) -> Table:
    """Show time and memory of a training step by width, and why an implementation ends."""
    names = list(dict.fromkeys(row["implementation"] for row in found))
    shown = [
        {
            "n": case["n"],
            **{f"{row['implementation']} {key}": row.get(key) for row in rows for key in ("median", "bytes")},
        }
        for case, rows in cases("scaling", found)
    ]
    columns = [Column("n", kind="number")]
    for name in names:
        columns += [Column(f"{name} median", name, "seconds"), Column(f"{name} bytes", f"{name} holds", "bytes")]
    notes = ["holds: weights, gradients, optimizer state, indices and activations"]
    for name in names:
        mine = [row for row in found if row["implementation"] == name]
        missing = next((f"; n={row['n']} {row['note']}" for row in mine if row.get("note")), "")
        notes.append(f"{name}: {table.growth(mine) or 'one width'}{missing}")
    return shown, columns, notes


def _step(rows: Rows, name: str) -> dict[str, Any]:
    """Return the row of an implementation's ordinary steps; empty where it was left out."""
    return next((row for row in rows if (row["implementation"], row["pass"]) == (name, "step")), {})


PAIRED = table.PAIRED.replace("the sparse kernels'", "sparse layers'")
SUMMARIES: dict[str, Callable[[Rows], Table]] = {**table.TABLES, "kernel": kernel, "step": step, "scaling": scaling}
"""The short table of every bench; the whole one where that is short."""
