"""What the parts of a topology update of one linear layer n x n cost: medians over interleaved rounds, and the peak.

python benchmarks/growth.py [--n 16384] [--density 0.01] [--fraction 0.3] [--threads 2] [--rounds 7]

The peak is what the process holds at most above what it held before the part, over the active connections (Linux with
glibc only), in a process of its own where freed memory is given back at once. Scores are random: gradients, which the
layer computes, are no part of this.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dstrun.backend.sparse.layer import Linear
from dstrun.grow.gse import GSE
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.growth import GrowthContext, best
from dstrun.layer.topology import Topology
from dstrun.method.dynamic.dst import Rewiring
from dstrun.method.dynamic.exchange import exchange
from dstrun.prune.magnitude import Magnitude
from dstrun.schedule.constant import Constant
from dstrun.subset.draw import draw
from dstrun.subset.uniform import Uniform


def held(what: str) -> int:
    """Read ``VmRSS`` or ``VmHWM``, in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) * 1024


def peak(part: Callable[[], Any]) -> int:
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    part()
    return held("VmHWM") - before


def parts(n: int, density: float, fraction: float) -> dict[str, Callable[[], Any]]:
    generator = torch.Generator().manual_seed(0)
    active = round(n * n * density)
    topology = Topology.random((n, n), active, generator)
    asked = GrowthContext(LinearGeometry((n, n)), active, topology.positions, round(fraction * active), generator)
    weights = torch.randn(active, generator=generator)
    layer = Linear(LinearGeometry((n, n)), topology, weights)
    layer.optimizer = torch.optim.SGD([layer.weight], momentum=0.9)
    layer.optimizer.state[layer.weight]["momentum_buffer"] = torch.zeros_like(weights)
    schedule = Constant(fraction=fraction, end=1, interval_steps=1)
    setting: Any = SimpleNamespace(
        layers=[layer], schedule=schedule, scope="layer", total_steps=10, prune=Magnitude(), grow=GSE(subset=Uniform())
    )
    setting.seed = 0
    rewiring = Rewiring(setting, "current", 0, "ceil")
    f, g = torch.rand(1, n, generator=generator), torch.rand(n, generator=generator)
    candidates = draw(f, g, asked, active, exact=True)
    scores = torch.rand(candidates.numel(), generator=generator)
    grown = best(scores, candidates, asked).kept
    changes = [(rewiring._rank_for_pruning(1)[0].position[: grown.numel()], grown)]

    def rewire() -> None:
        out, come = changes.pop()
        exchange(layer, out, come, candidates.numel())
        changes.append((come, out))

    return {
        "draw, uniform f and g": lambda: draw(torch.ones(1, n), torch.ones(n), asked, active, exact=True),
        "draw, random f and g": lambda: draw(f, g, asked, active, exact=True),
        "draw, random f and g, sampling=single": lambda: draw(f, g, asked, active, exact=False),
        "best candidates": lambda: best(scores, candidates, asked),
        "ranking for pruning": lambda: rewiring._rank_for_pruning(1),
        "rewiring": rewire,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--fraction", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peaks", action="store_true", help="print only the peaks, in bytes, as JSON")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    for part in parts(64, 0.1, 0.3).values():
        part()  # what is compiled or loaded at the first call
    timed = parts(words.n, words.density, words.fraction)
    active = round(words.n**2 * words.density)
    if words.peaks:
        print(json.dumps({name: peak(part) for name, part in timed.items()}))
        return
    command, environment = [sys.executable, *sys.argv, "--peaks"], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    peaks = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(words.rounds):
        for name, part in timed.items():
            start = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - start)
    print(f"n={words.n} density={words.density} active={active} threads={words.threads}")
    print(f"{'part':<38} {'median ms':>9} {'min ms':>8} {'max ms':>8} {'peak B/active':>14}")
    for name, found in times.items():
        row = f"{name:<38} {1e3 * statistics.median(found):9.1f} {1e3 * min(found):8.1f} {1e3 * max(found):8.1f}"
        print(f"{row} {peaks[name] / active:14.1f}")


if __name__ == "__main__":
    main()
