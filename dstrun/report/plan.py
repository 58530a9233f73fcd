"""A plan as text: one row a layer, then the totals."""

from __future__ import annotations

import json
import math
from typing import Any

from dstrun.report.format import Column, in_bytes, in_seconds
from dstrun.report.format import render as render_rows
from dstrun.report.terminal import Block, text
from dstrun.report.unpruned import not_prunable
from dstrun.system.progress import human
from dstrun.system.wording import counted, fixed

LAYERS = [
    Column("name", "layer"),
    Column("shape", "shape"),
    Column("connections", "connections", "number", 0),
    Column("active", "active", "number", 0),
    Column("density", "density", "share", 4),
    Column("macs", "dense MACs", "number", 0),
    Column("active_macs", "active MACs", "number", 0),
]

SWEEP = [
    Column("model", "model"),
    Column("dataset", "data set"),
    Column("runs", "runs", "number", 0),
    Column("flops", "FLOPs to train", "flops"),
]

RUNS = [
    Column("runs", "runs", "number", 0),
    Column("train", "FLOPs to train", "flops"),
    Column("train_x_dense", "train x dense", "x", 4),
    Column("inference_x_dense", "inference x dense", "x", 4),
]
"""Columns of the runs of a sweep, after those of the words in which they differ."""

PHASES = {"prepare": "scoring before training", "step": "a step", "update": "a topology update"}
PARTS = {
    "model": "parameters, buffers",
    "optimizer": "gradients, optimizer",
    "activation": "saved for backward",
    "index": "indices, masks",
    "method": "the method's own",
    "transient": "transient",
}
"""What each part of memory is, in a few words."""


def render(plan: dict[str, Any], fmt: str) -> str:
    """Render a plan: ``json`` is the whole of it, ``csv`` and ``latex`` its layers, ``md`` layers and totals."""
    if fmt == "json":
        return json.dumps(plan, indent=1)
    return render_rows(plan["layers"], LAYERS, fmt) if fmt != "md" else text(blocks(plan))


def blocks(plan: dict[str, Any]) -> list[Block | str]:
    """Format a plan: layers, totals, memory."""
    found: list[Block | str] = [*layer_blocks(plan["layers"]), totals(plan), plan["flops"]["convention"]]
    return [*found, *memory_blocks(plan["memory"]), *(fit_blocks(plan["fit"]) if "fit" in plan else [])]


def runs_block(rows: list[dict[str, Any]]) -> Block:
    """Lay out the runs of a sweep (``plan_runs``)."""
    shared = {column.key for column in RUNS}
    return Block(rows, [*(Column(key, head=True) for key in rows[0] if key not in shared), *RUNS])


def _sparsity(value: float) -> str:
    """Format a sparsity so that it is not 1 where connections are left."""
    return f"{value:.{4 if value == 1 else max(4, -math.floor(math.log10(1 - value)))}f}"


def layer_blocks(layers: list[dict[str, Any]]) -> list[Block | str]:
    """Format the layers; neighbors that differ in nothing but the name share a row, from the first to the last."""
    rows: list[dict[str, Any]] = []
    for layer in layers:
        if rows and all(rows[-1][key] == value for key, value in layer.items() if key != "name"):
            rows[-1] |= {"last": layer["name"], "layers": rows[-1]["layers"] + 1}
        else:
            rows.append({**layer, "layers": 1})
    if len(rows) == len(layers):
        return [Block(rows, LAYERS)]
    for row in rows:
        row["name"] += f" to {row['last']}" if "last" in row else ""
    shown = [LAYERS[0], Column("layers", "layers", "number", 0), *LAYERS[1:]]
    return [Block(rows, shown), "where a row is several layers, its numbers are those of each (--format csv lists all)"]


def totals(plan: dict[str, Any]) -> str:
    """Format the totals in a few lines."""
    parameters, flops = plan["parameters"], plan["flops"]
    lines = [
        f"parameters  {parameters['active']:,} active of {parameters['dense']:,}; "
        f"prunable {parameters['prunable']:,} at sparsity {_sparsity(parameters['sparsity'])}",
        f"inference   {human(flops['inference'])} FLOPs per image, {fixed(flops['inference_x_dense'], 4)} x dense"
        + (f"; attention products besides: {human(flops['attention_inference'])}"
           if flops["attention_inference"] else ""),
        f"training    {human(flops['train'])} FLOPs in {counted(flops['steps'], 'step')} with "
        f"{counted(flops['updates'], 'update')}, "
        f"{fixed(flops['train_x_dense'], 4)} x dense; "
        f"this backend executes {fixed(flops['executed_x_dense'], 4)} x dense",
    ]  # fmt: skip
    if "train_x_dense_paper" in flops:
        lines.append(
            f"            by the paper's formula with an update every {flops['paper_interval_steps']:,} steps: "
            f"{fixed(flops['train_x_dense_paper'], 4)} x dense"
        )
    lines += [f"{name:<12}{said}" for name, said in plan["rules"].items()]
    lines += not_prunable(plan["not_prunable"], parameters["dense"], flops["inference"] / flops["inference_x_dense"])
    lines += [f"note        {note}" for note in plan["notes"]]
    if "time" in plan:
        lines.append(_hours(plan["time"]))
    return "\n".join(lines)


def _hours(time: dict[str, Any]) -> str:
    """Return a sentence on how long the run would take here."""
    return (
        f"time        {in_seconds(3600 * time['hours'])} of training on this machine ({time['device']}): "
        f"{in_seconds(time['step_seconds'])} a step, {in_seconds(time['update_seconds'])} an update, measured now"
    )


def fit_blocks(fit: dict[str, Any]) -> list[Block | str]:
    """Format what fits into a given memory: one row per answer, with its overrides."""
    rows = [
        {
            "what": row["what"] + ("" if row["fits"] else ": does not fit" if row["peak_bytes"] else ": none fits"),
            "words": " ".join(row["words"]),
            "peak": row["peak_bytes"],
        }
        for row in fit["found"]
    ]
    limit = in_bytes(fit["limit_bytes"])
    shown = [
        Column("what", f"what fits into {limit}"),
        Column("words", "overrides"),
        Column("peak", "predicted", "bytes"),
    ]
    note = "5 % of the limit are left free for the error of predictions; libraries and the data set are not counted"
    return [Block(rows, shown), note]


def memory_blocks(memory: dict[str, Any]) -> list[Block | str]:
    """Format what is held at the peak of each phase: one row per phase, one column per part."""
    if not memory["at_peak"]:
        return [f"memory {memory['how']}"]
    rows = [
        {"phase": PHASES.get(phase, phase), "peak": sum(parts.values()), **parts}
        for phase, parts in memory["at_peak"].items()
    ]
    shown = [Column("phase", "memory at the peak of"), Column("peak", "total", "bytes")]
    shown += [Column(part, title, "bytes") for part, title in PARTS.items() if any(row[part] for row in rows)]
    return [Block(rows, shown), memory["how"]]
