"""Run folders as a sweep leaves them: three methods, three sparsities, three seeds, dense; hand-picked accuracies."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

TOP1 = {
    ("set", 0.9): (90.1, 90.4, 90.7),
    ("set", 0.95): (88.0, 88.6, 88.9),
    ("set", 0.98): (84.2, 85.0, 85.1),
    ("rigl", 0.9): (90.9, 91.1, 91.3),
    ("rigl", 0.95): (89.2, 89.4, 89.9),
    ("rigl", 0.98): (85.9, 86.4, 86.3),
    ("gse", 0.9): (91.0, 91.3, 91.2),
    ("gse", 0.95): (89.8, 90.0, 90.1),
    ("gse", 0.98): (87.2, 87.5),
    ("dense", 0.0): (92.9, 93.1, 93.0),
}
PARTS: dict[str, dict[str, Any]] = {
    "set": {"grow": "random", "schedule": "constant"},
    "rigl": {"grow": "gradient"},
    "gse": {"grow": "gse", "subset": "uniform"},
    "dense": {"method": "dense", "prune": None, "allocation": None, "schedule": None},
}
HEADER = "epoch,step,train_loss,loss,top1,top5,lr,seconds,flops,peak_bytes,resident_peak_bytes,split"


def record_of(label: str, sparsity: float, seed: int, top1: float, **changes: Any) -> dict[str, Any]:
    """Make the record of a finished run.

    ``changes`` are choices where they name a group, settings otherwise; those inside a group by their dotted key.
    """
    choices = {
        "model": "resnet56", "dataset": "cifar10", "method": "dst", "prune": "magnitude", "grow": None, "subset": None,
        "allocation": "er_fan_in", "schedule": "cosine", "optimizer": "sgd", "scope": "layer", "backend": "masked",
        "precision": "fp32",
    }  # fmt: skip
    choices |= PARTS.get(label, {}) | {key: value for key, value in changes.items() if key in choices}
    settings = {key: value for key, value in changes.items() if key not in choices and "." not in key}
    config: dict[str, Any] = {
        "sparsity": sparsity, "seed": seed, "epochs": 30, "batch_size": 128, "scope": "layer", "backend": "masked",
        "precision": "fp32", "experiment": "default", "results": "results", "wandb": "auto", "threads": None,
    }  # fmt: skip
    for group in ("model", "dataset", "method", "prune", "grow", "subset", "allocation", "schedule", "optimizer"):
        name = choices[group]
        config[group] = name and {"_target_": f"dstrun.{group}.{name}.{name.title()}"}
    config["model"]["width"] = 1.0
    if config["grow"] and config["subset"]:
        config["grow"] |= {"gamma": 1.0, "subset": config["subset"]}
    config |= {key: choices[key] for key in ("scope", "backend", "precision")} | settings
    for group, _, key in (dotted.partition(".") for dotted in changes if "." in dotted):
        config[group][key] = changes[f"{group}.{key}"]
    density = 1 - sparsity
    memory = 1_000_000 * (60 + seed) + (3_412_072 if label in ("rigl", "dense") else 68_241)
    return {
        "schema": 1,
        "id": f"{choices['model']}-{choices['dataset']}-{label}-s{sparsity:g}-seed{seed}-3f9c2a",
        "experiment": config["experiment"],
        "state": "done",
        "label": label,
        "choices": choices,
        "config": config,
        "accuracy": {"top1": top1, "top5": 99.0, "loss": 0.4, "split": "test"},
        "parameters": {"dense": 853018, "active": 20000, "prunable": 848944, "sparsity": sparsity},
        "flops": {
            "inference": int(2.5e8 * density), "inference_x_dense": density, "train": int(1.1e15 * density),
            "train_x_dense": density, "executed_train": int(1.1e15), "executed_x_dense": 1.0,
            "convention": "MAC = 2, conv and linear only",
        },
        "memory": {"peak_bytes": memory, "update_peak_bytes": memory // 2, "how": "cpu allocator"},
        "seconds": {"train": 900.0, "step_median": 0.0812, "epoch_median": 31.7, "update_median": 0.1, "total": 960.0},
        "updates": 46,
        "seed": seed,
        "code": {"git_commit": None, "dirty": False, "version": "0.1.0"},
        "env": {"python": "3.11", "torch": "2.9.0", "device": "cpu", "host": "node1", "threads": 2},
    }  # fmt: skip


def write(root: Path, record: dict[str, Any], folder: str | None = None) -> Path:
    """Leave a finished run: status, metrics, record."""
    place = root / record["experiment"] / (folder or record["id"])
    place.mkdir(parents=True)
    epochs, top1 = record["config"]["epochs"], record["accuracy"]["top1"]
    status = {
        "id": record["id"], "state": "done", "epoch": epochs, "epochs": epochs, "top1": top1, "eta_seconds": 0.0,
        "epoch_seconds": 31.7, "peak_bytes": record["memory"]["peak_bytes"], "host": "node1", "pid": 1, "job": None,
        "heartbeat": 1000.0, "message": None,
    }  # fmt: skip
    (place / "status.json").write_text(json.dumps(status))
    (place / "metrics.csv").write_text("\n".join([HEADER, *curve(epochs, top1, record["seed"])]) + "\n")
    (place / "record.json").write_text(json.dumps(record))
    return place


def write_results(root: Path) -> Path:
    """Write a sweep; gse at 98 % lacks its third seed, which failed."""
    for (label, sparsity), values in TOP1.items():
        for seed, top1 in enumerate(values):
            write(root, record_of(label, sparsity, seed, top1))
    write_status(root, "default/resnet56-cifar10-gse-s0.98-seed2-77aa01", "failed", message="out of memory")
    return root


def write_status(root: Path, name: str, state: str, **more: Any) -> Path:
    """Leave an unfinished run: a status alone, as old as its heartbeat says."""
    place = root / name
    place.mkdir(parents=True)
    (place / "status.json").write_text(json.dumps({"id": place.name, "state": state} | more))
    if (heartbeat := more.get("heartbeat")) is not None:
        os.utime(place / "status.json", (heartbeat, heartbeat))
    return place


def curve(epochs: int, top1: float, seed: int) -> list[str]:
    """Rise from chance to the final accuracy, noisy until the learning rate drops."""
    noise = random.Random(seed)
    rows = []
    for epoch in range(1, epochs + 1):
        high = epoch > 0.6 * epochs
        reached = 10 + (top1 - (0 if high else 6) - 10) * (1 - math.exp(-6 * epoch / epochs))
        value = top1 if epoch == epochs else min(reached + noise.gauss(0, 0.2 if high else 2), 100)
        rows.append(f"{epoch},{epoch * 391},1.5,1.4,{value:.2f},99.0,0.1,31.7,{epoch * 10**13},64000000,,test")
    return rows


def write_sweep(folder: Path, runs: dict[str, str | None], name: str = "20260101T000000-1", **more: Any) -> Path:
    """Leave what a sweep's client writes: the job of each run by id."""
    (folder / ".sweeps").mkdir(parents=True, exist_ok=True)
    sweep = {
        "schema": 1, "command": ["-m"], "started": 900.0, "ended": None, "launcher": "slurm", "host": "login", "pid": 1,
        "runs": [{"id": run, "job": job} for run, job in runs.items()],
    }  # fmt: skip
    file = folder / ".sweeps" / f"{name}.json"
    file.write_text(json.dumps(sweep | more))
    return file


def layers_of(*counts: tuple[str, int, int, int]) -> list[dict[str, Any]]:
    """Make the field ``layers`` of a record: name, all connections, those active at first and at last."""
    return [
        {"name": name, "shape": f"{size}x1", "connections": size, "initial": first, "active": last, "explored": 0.5}
        for name, size, first, last in counts
    ]


def write_topology(place: Path, rows: list[tuple[int, str, int, int, int, float]]) -> None:
    """Leave ``topology.csv``: step, layer, active, pruned, grown, explored."""
    lines = ["step,layer,active,pruned,grown,candidates,explored"]
    lines += [f"{step},{layer},{active},{went},{came},{came},{seen}" for step, layer, active, went, came, seen in rows]
    (place / "topology.csv").write_text("\n".join(lines) + "\n")
