"""What ``backend=auto`` chooses, against all layers masked and all sparse: whole steps in turns, on one thread.

    python benchmarks/choose.py [--models NAME:BATCH ...] [--sparsity S ...] [--rounds N]

Times are CPU seconds of the process, which programs on the same cores hardly disturb. Where ``auto`` chooses one of the
two, it trains the same network, and its ratio to it shows the error. Takes half an hour; choices are measured anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from statistics import median

import torch

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.run.choose import warmed
from dstrun.run.noise import NoiseExperiment
from dstrun.system.heap import keep_freed
from dstrun.train.training import Training

MODELS = ["vgg16_small:64", "resnet56:32", "resnet20:64", "mlp:128", "vit:16"]
SPARSITY = [0.5, 0.8, 0.9, 0.95, 0.98]
SECONDS = 0.3
"""Of CPU time that a turn has at least."""


def start(model: str, batch: str, sparsity: float, backend: str) -> Training:
    """Put a run together and take its first steps."""
    words = [f"model={model}", f"batch_size={batch}", f"sparsity={sparsity}", f"backend={backend}", "dataset=cifar10"]
    composed = compose([*words, "method=gse", "device=cpu", "threads=1", "wandb=disabled"])
    return warmed(assemble(NoiseExperiment(composed.config, composed.choices), torch.device("cpu")))


def turn(training: Training) -> float:
    """Return the median CPU seconds of some ordinary steps."""
    updates = training.procedure.updates_at
    step = next(s for s in range(1, training.total_steps + 1) if not updates(s))
    taken: list[float] = []
    while not taken or sum(taken) < SECONDS:
        training.step = step - 1
        began = time.process_time()
        training.take_step()
        taken.append(time.process_time() - began)
    return median(taken)


def main() -> int:
    """Print a line for each network and sparsity."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    words.add_argument("--models", nargs="*", default=MODELS, help="networks with their batch, NAME:BATCH")
    words.add_argument("--sparsity", nargs="*", type=float, default=SPARSITY)
    words.add_argument("--rounds", type=int, default=9)
    asked = words.parse_args()
    keep_freed()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DSTRUN_CACHE"] = folder
        for name in asked.models:
            for sparsity in asked.sparsity:
                model, batch = name.split(":")
                made = {backend: start(model, batch, sparsity, backend) for backend in ("auto", "masked", "sparse")}
                taken: dict[str, list[float]] = {backend: [] for backend in made}
                for number in range(asked.rounds):
                    first = number % len(made)
                    for backend in [*made][first:] + [*made][:first]:
                        taken[backend].append(turn(made[backend]))
                kept = [layer.backend for layer in made["auto"].layers]
                ratios = {
                    other: median(a / b for a, b in zip(taken["auto"], taken[other], strict=True))
                    for other in ("masked", "sparse")
                }
                print(
                    f"{model:<12} batch {batch:<4} {sparsity:<5} {kept.count('sparse'):>3} of {len(kept)} sparse   "
                    f"auto / masked {ratios['masked']:.3f}   auto / sparse {ratios['sparse']:.3f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
