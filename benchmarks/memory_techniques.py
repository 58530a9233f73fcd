"""Peak memory of a training step by technique: each alone, then several, then all; and what a step takes.

    python benchmarks/memory_techniques.py model=wideresnet dataset=cifar10 dataset.root=... batch_size=100

Words are those of ``dstrun``; every row adds its own. Peaks are measured (``docs/accounting.md``), in an ordinary step
and in an update of the topology. Times are medians of steps over ``--rounds`` processes a row, the rows taking turns,
and given relative to the first row: run it with nothing else on the machine. ``--rounds 0`` measures memory alone.
``--published 60.7`` prints that factor beside ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from statistics import median

SPARSE = ["method=gse", "backend=sparse", "sparsity=0.9"]
SAME = ["checkpointing=block", "activations=lean"]
EIGHT = ["checkpointing=block", "activations=int8"]
FEW = ["microbatch=10"]
ROUNDED = ["weights=bf16", "state=int8"]
ROWS = {
    "dense, fp32": ["method=dense"],
    "precision=bf16": ["method=dense", "precision=bf16"],
    "weights=bf16 state=int8": ["method=dense", *ROUNDED],
    "activations=lean": ["method=dense", "activations=lean"],
    "activations=int8": ["method=dense", "activations=int8"],
    "activations=int4": ["method=dense", "activations=int4"],
    "checkpointing=block": ["method=dense", "checkpointing=block"],
    "checkpointing=sqrt": ["method=dense", "checkpointing=sqrt"],
    "microbatch=10": ["method=dense", *FEW],
    "sparse, 90 %": SPARSE,
    "dense; lean, checkpointing": ["method=dense", *SAME],
    "sparse; lean, checkpointing": [*SPARSE, *SAME],
    "sparse; lean, checkpointing, microbatch=10": [*SPARSE, *SAME, *FEW],
    "all, microbatch=10": [*SPARSE, *SAME, *FEW, *ROUNDED],
    "all, activations=int8, microbatch=10": [*SPARSE, *EIGHT, *FEW, *ROUNDED],
    "all, activations=int8, microbatch=4": [*SPARSE, *EIGHT, "microbatch=4", *ROUNDED],
    "all, microbatch=5": [*SPARSE, *SAME, "microbatch=5", *ROUNDED],
    "all, microbatch=2": [*SPARSE, *SAME, "microbatch=2", *ROUNDED],
    "all, microbatch=1": [*SPARSE, *SAME, "microbatch=1", *ROUNDED],
}
COMMON = ["epochs=1", "dataset.limit=2000", "schedule.interval_steps=4", "schedule.begin=0", "wandb=disabled"]


def one(words: list[str], steps: int) -> dict[str, object]:
    """Measure a step and an update, if there are any, and time some steps."""
    import torch

    from dstrun.config.composition import compose
    from dstrun.run.assemble import assemble

    if "method=dense" in words:
        words = [word for word in words if not word.startswith(("schedule.", "sparsity="))]
    run = assemble(compose(words), torch.device("cpu"))
    run.model.train()
    run.prepare()
    taken: list[float] = []
    wanted = {"step"} | ({"update"} if any(map(run.procedure.updates_at, range(2, run.total_steps + 1))) else set())
    while len(taken) < steps or not wanted <= run.memory.peaks.keys():
        step = run.step + 1
        kind = "update" if run.procedure.updates_at(step) else "step"
        run.data.begin(run.step)
        if kind not in run.memory.peaks and step > 1:
            with run.memory.phase(kind):
                run.take_step()
            continue
        start = time.perf_counter()
        run.take_step()
        if kind == "step" and step > 1:
            taken.append(time.perf_counter() - start)
    return {"memory": run.memory.record(), "seconds": median(taken) if taken else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed in each process")
    parser.add_argument("--only", help="rows that contain this")
    parser.add_argument("--published", type=float)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        warnings.simplefilter("ignore")
        print(json.dumps(one(json.loads(asked.one), asked.steps)))
        return
    rows = {
        name: words for name, words in ROWS.items() if not asked.only or asked.only in name or name == next(iter(ROWS))
    }
    found: dict[str, list[dict]] = {name: [] for name in rows}
    for turn in range(max(1, asked.rounds)):
        for name, words in rows.items():
            given = json.dumps([*COMMON, *asked.words, *words])
            steps = asked.steps if asked.rounds else 0
            command = [sys.executable, __file__, "--one", given, "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            if not turn:
                print(f"  {name} ...", file=sys.stderr)
    first = next(iter(found.values()))
    print(f"{'':44s} {'step MB':>9s} {'update MB':>9s} {'factor':>7s} {'time':>6s}")
    for name, results in found.items():
        memory = results[0]["memory"]
        update = memory["update_peak_bytes"]
        took = ""
        if asked.rounds:
            took = f"{median(r['seconds'] / f['seconds'] for r, f in zip(results, first, strict=True)):.2f}"
        factor = first[0]["memory"]["peak_bytes"] / memory["peak_bytes"]
        shown = f"{update / 1e6:9.2f}" if update else f"{'-':>9s}"
        print(f"{name:44s} {memory['step_peak_bytes'] / 1e6:9.2f} {shown} {factor:7.1f} {took:>6s}")
    if asked.published:
        print(f"{'published (Sohoni et al. 2019), on paper':44s} {'':9s} {'':9s} {asked.published:7.1f}")


if __name__ == "__main__":
    main()
