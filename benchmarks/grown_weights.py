"""How far grown weights move under Adam in their first 100 steps, against an Adam that starts with them.

python benchmarks/grown_weights.py [--steps 100] [--from 1000] [WORDS of a run ...]

Trains a run twice: as it is, and with the bias of grown weights corrected by the steps that all weights share, as
``torch.optim.AdamW`` does. From a step on, whatever grows is followed while it lives: every update of it, and that of a
``torch.optim.Adam`` that begins when it grows and sees the same gradients. Updates are in units of the learning rate,
weight decay left out. Nothing is timed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import torch
from shared_adam import Shared
from torch import Tensor

from dstrun.config.composition import compose
from dstrun.layer.interface import SparseLayer
from dstrun.optimizer import aged
from dstrun.run.assemble import assemble
from dstrun.train.training import Training

WORDS = [
    "dataset=digits", "model=mlp", "method=rigl", "optimizer=adamw", "epochs=200", "sparsity=0.9", "batch_size=64",
    "schedule.interval_steps=150", "schedule.end=1", "schedule.fraction=0.3", "threads=1",
]  # fmt: skip


@dataclass
class Followed:
    """What one update has grown in one layer, and the Adam that began with it."""

    layer: SparseLayer
    positions: Tensor
    weights: Tensor
    adam: torch.optim.Adam
    lives: Tensor
    steps: int = 0


@dataclass
class Sums:
    """Updates in units of the learning rate, by step since growth: ours, the reference's, and how many weights."""

    steps: int
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ours, self.reference, self.weights = [0.0] * self.steps, [0.0] * self.steps, [0] * self.steps

    def say(self, name: str) -> None:
        """Print one line."""
        ours, reference, weights = sum(self.ours), sum(self.reference), sum(self.weights)
        ratios = [a / b for a, b in zip(self.ours, self.reference, strict=True) if b]
        print(
            f"{name:7} mean update {ours / weights:.3f} lr, of an Adam of its own {reference / weights:.3f} lr: "
            f"ratio {ours / reference:.3f}; first step {ratios[0]:.3f}, largest {max(ratios):.3f} "
            f"at step {1 + ratios.index(max(ratios))}; {self.weights[0]:,} grown weights"
        )


def at(layer: SparseLayer, positions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return what stands at positions of a layer, of (A,) values, and which positions are active."""
    active = layer.topology.positions
    place = torch.searchsorted(active, positions).clamp(max=active.numel() - 1)
    return values[place], active[place] == positions


def follow(words: list[str], steps: int, first: int) -> Sums:
    """Train, and add up updates of grown weights."""
    training = assemble(compose(words), torch.device("cpu"))
    training.model.train()
    training.prepare()
    decay = training.optimizer.param_groups[0]["weight_decay"]
    betas = training.optimizer.param_groups[0]["betas"]
    followed: list[Followed] = []
    sums = Sums(steps)
    before: dict[int, Tensor] = {}

    def pre(*_: Any) -> None:
        for index, one in enumerate(followed):
            gradient, active = at(one.layer, one.positions, one.layer.grad())
            one.lives &= active
            one.weights.grad = torch.where(one.lives, gradient, 0.0)
            before[index] = at(one.layer, one.positions, one.layer.values())[0].clone()

    def post(*_: Any) -> None:
        rate = training.optimizer.param_groups[0]["lr"]
        for index, one in enumerate(followed):
            after, __ = at(one.layer, one.positions, one.layer.values())
            ours = after - before[index] * (1 - rate * decay)
            old = one.weights.detach().clone()
            one.adam.param_groups[0]["lr"] = rate
            one.adam.step()
            reference = one.weights.detach() - old
            sums.ours[one.steps] += (ours[one.lives].abs().sum() / rate).item()
            sums.reference[one.steps] += (reference[one.lives].abs().sum() / rate).item()
            sums.weights[one.steps] += int(one.lives.sum())
            one.steps += 1
        followed[:] = [one for one in followed if one.steps < steps]

    training.optimizer.register_step_pre_hook(pre)
    training.optimizer.register_step_post_hook(post)
    for _ in range(training.total_steps):
        followed += step(training, training.step + 1 >= first, betas)
    return sums


def step(training: Training, records: bool, betas: tuple[float, float]) -> list[Followed]:
    """Take a step; give what it grew."""
    before = [layer.topology.positions for layer in training.layers]
    if not training.take_step() or not records or training.step == training.total_steps:
        return []
    made = []
    for layer, old in zip(training.layers, before, strict=True):
        positions = layer.topology.positions
        new = positions[~torch.isin(positions, old)]
        weights = torch.zeros(new.numel()).requires_grad_()
        made.append(Followed(layer, new, weights, torch.optim.Adam([weights], 1.0, betas), new >= 0))
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--from", type=int, default=1000, dest="first")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    words = WORDS + given.words
    print(" ".join(words))
    follow(words, given.steps, given.first).say("own")
    aged.AgedAdam = Shared
    follow(words, given.steps, given.first).say("shared")


if __name__ == "__main__":
    main()
