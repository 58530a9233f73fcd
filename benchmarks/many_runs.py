"""How long the views of a large sweep take, as whole processes on synthetic run folders, and how much memory.

python benchmarks/many_runs.py [--runs 10000] [--epochs 200] [--rounds 5]

Commands take turns in every round. The files have just been written, so that they are in memory: a network file system
adds its latency, about twice a run for status, three times for table, four times for export. Needs 50 kB of disk a run.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from dstrun.report import status, watch

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "--version", "status", "status --format csv", "table", "plot sparsity", "plot curves", "report", "export",
    "export --format csv",
)  # fmt: skip
STATES = ("done",) * 17 + ("interrupted", "failed", "queued")
"""One in twenty of each other state; of a hundred runs, one is running and one is lost."""
METRICS = (
    "epoch,step,train_loss,loss,top1,top5,lr,seconds,flops,peak_bytes,resident_peak_bytes,split\n",
    "{0},{1},1.0219{0},0.98{0}17,{2:.2f},98.71,0.1,31.70{0},{1}00000000,553149596,1203400704,test\n",
)


def make(root: Path, count: int, epochs: int) -> None:
    """Write the folders of ``count`` runs: 10 models x 5 methods x 4 sparsities, 5 learning rates, and seeds."""
    made = next(ROOT.glob("results/published/resnet56-backends/*/record.json"))
    template, now = json.loads(made.read_text()), time.time()
    settings = list(product(range(20, 120, 10), ("set", "rigl", "gse", "snip", "static"), (0.8, 0.9, 0.95, 0.98)))
    queued: dict[str, list[dict[str, Any]]] = {}
    for i in range(count):
        (depth, method, sparsity), rest = settings[i % len(settings)], i // len(settings)
        experiment, seed, lr = f"resnet{depth}", rest // 5, (0.01, 0.02, 0.05, 0.1, 0.2)[rest % 5]
        name = f"resnet{depth}-cifar10-{method}-s{sparsity:g}-seed{seed}-{i:08x}"
        state = "running" if i % 100 == 50 else "lost" if i % 100 == 51 else STATES[i % 20]
        queued.setdefault(experiment, []).append({"id": name, "job": f"4711_{i}"})
        if state == "queued":
            continue
        record = copy.deepcopy(template)
        record |= {"id": name, "experiment": experiment, "label": method, "seed": seed}
        record["choices"] |= {"model": f"resnet{depth}", "method": method}
        record["config"] |= {"sparsity": sparsity, "seed": seed, "epochs": epochs}
        record["config"]["optimizer"]["lr"] = lr
        record["accuracy"]["top1"] = 60 + i * 7919 % 3000 / 100
        write(root / experiment / name, record, state, epochs, now, 100_000 + i)
    for experiment, runs in queued.items():
        sweep = {"schema": 1, "command": ["-m"], "started": now, "ended": None, "launcher": "slurm", "host": "login"}
        (root / experiment / ".sweeps").mkdir()
        (root / experiment / ".sweeps" / "20260101T000000-1.json").write_text(json.dumps({**sweep, "runs": runs}))


def write(folder: Path, record: dict[str, Any], state: str, epochs: int, now: float, pid: int) -> None:
    """Leave one run as it would be found."""
    folder.mkdir(parents=True)
    reached = epochs if state == "done" else epochs // 2
    status = {
        "id": record["id"], "host": f"node{pid % 40}", "pid": pid, "job": f"4711_{pid}",
        "heartbeat": now - 1e6 if state == "lost" else now + 3600, "state": "running" if state == "lost" else state,
        "epoch": reached, "epochs": epochs, "top1": record["accuracy"]["top1"], "epoch_seconds": 31.7,
        "eta_seconds": None if state == "done" else 31.7 * (epochs - reached),
        "peak_bytes": record["memory"]["peak_bytes"], "message": "out of memory" if state == "failed" else None,
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status, indent=1))
    (folder / "config.yaml").write_text(json.dumps({"choices": record["choices"]} | record["config"], indent=1))
    rows = [METRICS[1].format(epoch, epoch * 391, 90 - 80 / epoch) for epoch in range(1, reached + 1)]
    (folder / "metrics.csv").write_text("".join([METRICS[0], *rows]))
    if state == "done":
        (folder / "record.json").write_text(json.dumps(record, indent=1))


def measure(words: list[str]) -> tuple[float, float, float]:
    """Give the seconds, those of them on the CPU, and the peak resident MB of one command, in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dstrun", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    _, ended, used = os.wait4(process.pid, 0)
    if ended:
        raise SystemExit(f"dstrun {' '.join(words)} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def refreshes(root: Path, count: int) -> list[float]:
    """Give the CPU seconds of each look of ``status --watch``, the first of which reads everything."""
    sweep, choose, found = status.Sweep([root]), status.chooser(None, "state"), []
    for _ in range(count):
        start = time.process_time()
        rows = sweep.rows(time.time())
        watch.frame(choose(rows), status.totals(rows), 100, 40)
        found.append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--runs", 10_000), ("--epochs", 200), ("--rounds", 5)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float, float]]] = {command: [] for command in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        root, outs = Path(folder) / "results", {"plot": "figure.png", "report": "report.html", "export": "export"}
        make(root, arguments.runs, arguments.epochs)
        for _ in range(arguments.rounds):
            for command, found in times.items():
                words = command.split()
                words += [] if command == "--version" else [str(root)]
                words += ["--out", f"{folder}/{outs[words[0]]}"] if words[0] in outs else []
                found.append(measure(words))
        looks = refreshes(root, 10)
    print(f"{'command':<28} {'median s':>8} {'min s':>7} {'max s':>7} {'CPU s':>7} {'peak MB':>8}")
    for command, found in times.items():
        seconds, cpu, peak = zip(*found, strict=True)
        row = f"dstrun {command:<21} {statistics.median(seconds):8.2f} {min(seconds):7.2f} {max(seconds):7.2f}"
        print(f"{row} {statistics.median(cpu):7.2f} {max(peak):8.0f}")
    first, again = looks[0], statistics.median(looks[1:])
    print(f"status --watch: {first:.2f} s of CPU first, then {again:.3f} s a refresh (median of {len(looks) - 1})")


if __name__ == "__main__":
    main()
