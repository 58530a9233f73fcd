"""Run the answers of ``dstrun plan ... fit=`` under a limit of memory, each in a process of its own.

    python benchmarks/memory_fit.py LIMIT WORDS...        as in 300MB model=resnet20 dataset=cifar10 method=gse

A child takes the steps that a prediction looks at, on noise. What it needs before (libraries, compiled kernels) is let
grow first, by a run of the same words on two images; then its address space may grow by the limit (``RLIMIT_AS``: what
the system takes for every allocation, used or not). Besides, the same words are run with a third more images a batch,
which has to fail. Prints the predicted and the measured peak, by how much the resident memory has risen (``VmHWM``),
and how it ended.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import torch

from dstrun import config, fitting
from dstrun.account.memory import resident_peak_bytes
from dstrun.assemble import assemble
from dstrun.bench.step import NoiseExperiment
from dstrun.heap import keep_freed
from dstrun.predict import steps_to_see
from dstrun.train.training import Training
from dstrun.trouble import out_of_memory

CPU = torch.device("cpu")
COMMON = ("wandb=disabled", "epochs=20")
THREAD = 64 * 2**20
"""Address space that the C library sets aside for each thread that allocates, in steps: no memory."""


def child(words: list[str], limit: int) -> None:
    """Run one configuration within the limit, and tell what became of it."""
    keep_freed()
    steps(start([*(word for word in words if not word.startswith("batch_size=")), "batch_size=2"]))
    gc.collect()
    with open("/proc/self/status") as file:
        size = {
            line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(("VmSize", "VmRSS"))
        }
    resident_peak_bytes()
    allowed = size["VmSize"] + limit + torch.get_num_threads() * THREAD
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    told: dict[str, Any] = {"ended": "fits"}
    try:
        run = start(words)
        steps(run)
        told["measured"] = run.memory.record()["peak_bytes"]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        told["ended"] = "out of memory"
    told["risen"] = (resident_peak_bytes() or 0) - size["VmRSS"]
    print(json.dumps(told))


def start(words: list[str]) -> Training:
    """Assemble a run on noise."""
    experiment = config.compose([*COMMON, *words])
    training = assemble(NoiseExperiment(experiment.config, experiment.choices), CPU)
    training.model.train()
    training.prepare()
    return training


def steps(run: Training) -> None:
    """Take an ordinary step and an update."""
    for step in steps_to_see(run):
        run.step = step - 1
        run.data.begin(step - 1)
        with run.memory.phase("update" if run.procedure.updates_at(step) else "step") if step > 1 else nullcontext():
            run.take_step()


def main() -> int:
    """Print a row an answer."""
    limit, words = fitting.parse(sys.argv[1]), sys.argv[2:]

    def again(more: Any) -> config.Experiment:
        return config.compose([*COMMON, *merged(words, more)])

    wrong = 0
    for row in fitting.fit(again([]), again, limit):
        if not row["fits"]:
            continue
        said = merged(words, row["words"])
        size = config.compose([*COMMON, *said]).config["batch_size"]
        for tried, expected in ((said, "fits"), (merged(said, [f"batch_size={4 * size // 3}"]), "")):
            if row["what"] != "the largest batch" and not expected:
                continue
            call = [sys.executable, __file__, "--child", str(limit), *tried]
            found = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
            wrong += found["ended"] != (expected or "out of memory")
            print(row["what"], " ".join(row["words"] if expected else tried[-1:]), sep=": ")
            for key in ("measured", "risen"):
                print(f"    {key:<12}{found.get(key, 0):>16,}")
            print(f"    {'predicted':<12}{row['peak_bytes'] if expected else 0:>16,}\n    {found['ended']}", flush=True)
    return wrong


def merged(words: list[str], more: list[str]) -> list[str]:
    """Return words with others in place of those of the same keys."""
    keys = {word.partition("=")[0] for word in more}
    return [*(word for word in words if word.partition("=")[0] not in keys), *more]


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[3:], int(sys.argv[2]))
    else:
        sys.exit(main())
