"""Predicted against measured memory of steps and updates, over a grid of networks, methods, backends and settings.

    python benchmarks/memory_grid.py [--only WORD ...] [--csv FILE]

Each case is predicted (``dstrun.run.predict``, nothing is computed) and then really run on noise for the same steps,
on the CPU, in this process. Prints a row a phase, then the worst and the median error. Takes three minutes.
"""

from __future__ import annotations

import argparse
import csv
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.run.assemble import assemble
from dstrun.run.noise import Noise
from dstrun.run.predict import predict_memory, steps_to_see
from dstrun.train.training import Training

CPU = torch.device("cpu")
COMMON = ("epochs=2", "wandb=disabled")


def grid() -> Iterator[list[str]]:
    """Go over the cases: 40 of networks, methods and backends, then the techniques that save memory."""
    sizes = {"mlp": 128, "resnet20": 64, "resnet56": 32, "vgg16_small": 64, "vit": 16}
    data = {"mlp": "digits"}
    for model, (method, backend) in product(
        sizes, [("dense", "masked"), ("set", "masked"), ("rigl", "masked"), ("rigl", "sparse"), ("gse", "sparse")]
    ):
        yield [f"model={model}", f"dataset={data.get(model, 'cifar10')}", f"method={method}", f"backend={backend}",
               f"batch_size={sizes[model]}"]  # fmt: skip
    cifar, digits = "dataset=cifar10", "dataset=digits"
    yield ["model=mlp", digits, "method=snfs", "backend=masked", "batch_size=8", "optimizer=adam"]
    yield ["model=mlp", digits, "method=static", "backend=sparse", "batch_size=512", "optimizer=adam"]
    yield ["model=mlp", digits, "method=gse", "backend=masked", "batch_size=128", "precision=bf16"]
    yield ["model=resnet20", cifar, "method=snfs", "backend=masked", "batch_size=32", "optimizer=adam"]
    yield ["model=resnet20", cifar, "method=gse", "backend=masked", "batch_size=128", "precision=bf16"]
    yield ["model=resnet20", cifar, "method=static", "backend=sparse", "batch_size=16", "optimizer=adam"]
    yield ["model=resnet20", cifar, "method=set", "backend=sparse", "batch_size=64", "precision=bf16"]
    yield ["model=resnet20", cifar, "method=snip", "backend=masked", "batch_size=64"]
    yield ["model=resnet56", cifar, "method=gse", "backend=sparse", "batch_size=8", "optimizer=adam"]
    yield ["model=resnet56", cifar, "method=static", "backend=masked", "batch_size=16", "precision=bf16"]
    yield ["model=vgg16_small", cifar, "method=rigl", "backend=masked", "batch_size=8", "optimizer=adam"]
    yield ["model=vgg16_small", cifar, "method=gse", "backend=sparse", "batch_size=32", "precision=bf16"]
    yield ["model=vit", cifar, "method=static", "backend=masked", "batch_size=8", "optimizer=adam"]
    yield ["model=vit", cifar, "method=gse", "backend=masked", "batch_size=32", "precision=bf16"]
    yield ["model=vit", cifar, "method=set", "backend=sparse", "batch_size=8", "optimizer=adam"]
    small = [cifar, "batch_size=32"]
    yield ["model=resnet20", *small, "method=gse", "backend=sparse", "microbatch=8"]
    yield ["model=resnet20", *small, "method=rigl", "backend=sparse", "microbatch=8"]
    yield ["model=resnet20", *small, "method=dense", "backend=masked", "checkpointing=block"]
    yield ["model=resnet56", *small, "method=gse", "backend=sparse", "checkpointing=sqrt"]
    yield ["model=resnet56", *small, "method=gse", "backend=sparse", "checkpointing=block", "activations=lean"]
    yield ["model=resnet20", *small, "method=dense", "backend=masked", "activations=lean"]
    yield ["model=resnet20", *small, "method=dense", "backend=masked", "activations=int8"]
    yield ["model=resnet20", *small, "method=set", "backend=sparse", "activations=int4"]
    yield ["model=vgg16_small", *small, "method=gse", "backend=sparse", "activations=bf16", "optimizer=adam"]
    yield ["model=vgg16_small", *small, "method=rigl", "backend=masked", "weights=bf16", "state=int8"]
    yield ["model=vgg16_small", *small, "method=gse", "backend=sparse", "weights=bf16", "rounding=kahan"]
    yield ["model=vit", *small, "method=gse", "backend=sparse", "activations=int8", "microbatch=8"]
    yield ["model=vit", *small, "method=dense", "backend=masked", "optimizer=adam", "weights=bf16", "state=int8"]
    everything = ["checkpointing=block", "activations=int8", "weights=bf16", "state=int8", "microbatch=4"]
    yield ["model=wideresnet", *small, "method=gse", "backend=sparse", *everything]
    yield ["model=vgg16_small", *small, "method=gse", "backend=masked", *everything]


@dataclass(frozen=True)
class Noisy(Experiment):
    """An experiment on as many images of noise as the data set has."""

    def build(self, group: str) -> Any:
        """Build an option; of the data set its likeness."""
        made = super().build(group)
        return Noise(made, made.train_images, made.augment) if group == "dataset" else made


def start(experiment: Experiment) -> Training:
    """Assemble a run on noise."""
    training = assemble(Noisy(experiment.config, experiment.choices), CPU)
    training.model.train()
    training.prepare()
    return training


def take_steps(training: Training, measure: bool = True) -> None:
    """Take the steps that a prediction looks at."""
    for step in steps_to_see(training):
        training.step = step - 1
        training.data.begin(step - 1)
        kind = "update" if training.procedure.updates_at(step) else "step"
        with training.memory.phase(kind) if measure and step > 1 else nullcontext():
            training.take_step()


def measured(experiment: Experiment) -> dict[str, Any]:
    """Measure the phases of a run."""
    training = start(experiment)
    take_steps(training)
    return training.memory.record()


def main() -> int:
    """Print the grid."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    words.add_argument("--only", nargs="*", default=[], help="cases that have all of these words")
    words.add_argument("--csv", type=Path, help="write the rows here, too")
    asked = words.parse_args()
    rows = []
    for case in grid():
        if not set(asked.only) <= set(case):
            continue
        experiment = compose([*COMMON, *case, *([] if "method=dense" in case else ["sparsity=0.95"])])
        began = time.perf_counter()
        predicted = predict_memory(experiment)["at_peak"]
        seconds = time.perf_counter() - began
        found = measured(experiment)["at_peak"]
        gc.collect()
        for phase in found:
            one, other = (sum(at.get(phase, {"none": 0}).values()) for at in (predicted, found))
            rows.append({"case": " ".join(case), "phase": phase, "predicted": one, "measured": other,
                         "error": one / other - 1, "seconds": seconds})  # fmt: skip
            print(f"{rows[-1]['case']:<88} {phase:<8}{one:>14,}{other:>14,} {one / other - 1:>+8.2%} {seconds:5.1f} s",
                  flush=True)  # fmt: skip
            if abs(one / other - 1) > 0.05:
                for part in found[phase]:
                    print(f"    {part:<12}{predicted[phase][part]:>14,}{found[phase][part]:>14,}")
    errors = [abs(row["error"]) for row in rows]
    print(f"{len(rows)} phases of {len({r['case'] for r in rows})} cases: worst {max(errors):.2%}, "
          f"median {median(errors):.2%}")  # fmt: skip
    if asked.csv:
        with open(asked.csv, "w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    return int(max(errors) > 0.05)


if __name__ == "__main__":
    sys.exit(main())
