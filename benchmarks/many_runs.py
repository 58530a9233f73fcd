"""How long the views of a large sweep take, as whole processes on synthetic run folders, and how much memory.

python benchmarks/many_runs.py [--runs 10000] [--epochs 200] [--rounds 5] [--damaged 0.01]
python benchmarks/many_runs.py --tree ../before=before --tree .=after    # two versions, and the ratio of the second

Commands take turns in every round, and within a command the versions do. Each version reads folders as it writes them
itself: with checksums or, before there were any, without; all else in them is the same, the damage too. The files have
just been written, so that they are in memory: a network file system adds its latency, about twice a run for status,
three times for table, four times for export. Needs 50 kB of disk a run, and as much again for a version of the other
kind.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

from dstrun.record import sealed
from dstrun.record.writer import signed

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


def cut(folder: Path, draw: random.Random) -> None:
    """Leave a part of the record."""
    data = (folder / "record.json").read_bytes()
    (folder / "record.json").write_bytes(data[: draw.randrange(1, len(data))])


def flip(folder: Path, draw: random.Random) -> None:
    """Change a byte of the record."""
    data = bytearray((folder / "record.json").read_bytes())
    data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
    (folder / "record.json").write_bytes(data)


def empty(folder: Path, draw: random.Random) -> None:
    """Leave nothing of the status."""
    (folder / "status.json").write_bytes(b"")


def garble(folder: Path, draw: random.Random) -> None:
    """Leave no row of an epoch."""
    (folder / "metrics.csv").write_bytes(draw.randbytes(5000))


DAMAGES = (cut, flip, empty, garble)


def make(root: Path, count: int, epochs: int, damaged: float, seals: bool) -> None:
    """Write the folders of ``count`` runs: 10 models x 5 methods x 4 sparsities, 5 learning rates, and seeds.

    Args:
        root: a new folder.
        count: of runs.
        epochs: of each.
        damaged: share of the runs that are damaged afterwards, all of them done.
        seals: whether files have checksums.
    """
    made = next(ROOT.glob("results/published/resnet56-backends/*/record.json"))
    template, now = json.loads(made.read_text()), time.time()
    settings = list(product(range(20, 120, 10), ("set", "rigl", "gse", "snip", "static"), (0.8, 0.9, 0.95, 0.98)))
    queued: dict[str, list[dict[str, Any]]] = {}
    done: list[Path] = []
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
        write(root / experiment / name, record, state, epochs, now, 100_000 + i, seals)
        if state == "done":
            done.append(root / experiment / name)
    for experiment, runs in queued.items():
        sweep = {"schema": 1, "command": ["-m"], "started": now, "ended": None, "launcher": "slurm", "host": "login"}
        (root / experiment / ".sweeps").mkdir()
        put(root / experiment / ".sweeps" / "20260101T000000-1.json", {**sweep, "runs": runs}, seals)
    many, draw = round(damaged * count), random.Random(0)
    for number in range(many):
        DAMAGES[number % len(DAMAGES)](done[number * len(done) // many], draw)


def put(path: Path, value: dict[str, Any], seals: bool) -> None:
    """Write an object as a run of this version does, or as one did before there were checksums."""
    path.write_text(sealed.seal(value) if seals else json.dumps(value, indent=1))


def write(folder: Path, record: dict[str, Any], state: str, epochs: int, now: float, pid: int, seals: bool) -> None:
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
    rows = [METRICS[1].format(epoch, epoch * 391, 90 - 80 / epoch) for epoch in range(1, reached + 1)]
    metrics = "".join([METRICS[0], *rows])
    (folder / "metrics.csv").write_text(metrics)
    sums = {"rows": reached, "bytes": len(metrics), "crc32": f"{crc32(metrics.encode()):08x}"}
    counted = {"rows": {"metrics.csv": sums}} if seals else {}
    config = json.dumps({"choices": record["choices"]} | record["config"], indent=1) + "\n"
    (folder / "config.yaml").write_text(signed(config) if seals else config)
    put(folder / "status.json", status | counted, seals)
    if state == "done":
        put(folder / "record.json", record | counted, seals)


def measure(tree: Path, words: list[str], here: Path) -> tuple[float, float, float]:
    """Return the seconds, those of them on the CPU, and the peak resident MB of a command, in a process of its own."""
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=here, env=environment(tree, here), **options)
    _, ended, used = os.wait4(process.pid, 0)
    if ended:
        raise SystemExit(f"{' '.join(words)} failed with {tree}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def environment(tree: Path, here: Path) -> dict[str, str]:
    """Return what has a process import the package of a tree, and leave nothing in it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(here / "pycache")}


LOOKS = """
import json, sys, time
from dstrun.report import status, watch
sweep, choose, found = status.Sweep(sys.argv[1:]), status.chooser(None, "state"), []
for _ in range(10):
    start = time.process_time()
    rows = sweep.rows(time.time())
    watch.frame(choose(rows), status.totals(rows), 100, 40)
    found.append(time.process_time() - start)
print(json.dumps(found))
"""
"""The CPU seconds of each look of ``status --watch``, the first of which reads everything."""


def looks(tree: Path, root: Path, here: Path) -> list[float]:
    """Return what ``LOOKS`` prints with the package of a tree."""
    words = [sys.executable, "-c", LOOKS, str(root)]
    done = subprocess.run(words, cwd=here, env=environment(tree, here), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--runs", 10_000), ("--epochs", 200), ("--rounds", 5)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--damaged", type=float, default=0.0, help="share of runs whose files are damaged (default: 0)")
    parser.add_argument("--only", help="of the commands, those that begin so, with commas")
    parser.add_argument("--tree", action="append", help="PATH[=label] of a checkout to measure (default: this one)")
    arguments = parser.parse_args()
    trees: dict[str, Path] = {}
    for word in arguments.tree or [str(ROOT)]:
        path, _, label = word.partition("=")
        trees[label or Path(path).resolve().name] = Path(path).resolve()
    only = tuple(arguments.only.split(",")) if arguments.only else ("",)
    times: dict[tuple[str, str], list[tuple[float, float, float]]] = {
        (command, label): [] for command in COMMANDS if command.startswith(only) for label in trees
    }
    outs = {"plot": "figure.png", "report": "report.html", "export": "export"}
    with tempfile.TemporaryDirectory() as folder:
        here, roots = Path(folder), {}
        for label, tree in trees.items():
            seals = (tree / "dstrun" / "record" / "sealed.py").exists()
            roots[label] = here / ("sealed" if seals else "plain")
            if not roots[label].exists():
                make(roots[label], arguments.runs, arguments.epochs, arguments.damaged, seals)
        for _ in range(arguments.rounds):
            for (command, label), found in times.items():
                words = ["-m", "dstrun", *command.split()]
                words += [] if command == "--version" else [str(roots[label])]
                words += ["--out", f"{folder}/{outs[words[2]]}"] if words[2] in outs else []
                found.append(measure(trees[label], words, here))
        watched = {label: looks(tree, roots[label], here) for label, tree in trees.items()}
    width = max(map(len, trees)) if len(trees) > 1 else 0
    print(f"{'command':<28} {'':<{width}} {'median s':>8} {'min s':>7} {'max s':>7} {'CPU s':>7} {'peak MB':>8}")
    for (command, label), found in times.items():
        seconds, cpu, peak = zip(*found, strict=True)
        row = f"dstrun {command:<21} {label:<{width}} " if width else f"dstrun {command:<21}  "
        row += f"{statistics.median(seconds):8.2f} {min(seconds):7.2f} {max(seconds):7.2f}"
        row += f" {statistics.median(cpu):7.2f} {max(peak):8.0f}"
        print(row + ratios(found, times[command, next(iter(trees))]) * (label != next(iter(trees))))
    for label, found in watched.items():
        first, again = found[0], statistics.median(found[1:])
        print(f"status --watch {label}: {first:.2f} s of CPU first, then {again:.3f} s a refresh (median of 9)")


def ratios(found: list[tuple[float, float, float]], first: list[tuple[float, float, float]]) -> str:
    """Return how many times the seconds, CPU seconds and memory of the first tree another takes: medians."""
    parts = [statistics.median(b[i] / a[i] for a, b in zip(first, found, strict=True)) for i in range(3)]
    return "  x {:.2f}, CPU x {:.2f}, MB x {:.2f}".format(*parts)


if __name__ == "__main__":
    main()
