"""Train densely with a plain PyTorch loop on the same network and batches, to check that a dense row is no artefact.

python benchmarks/plain_loop.py model=vgg16_small dataset.root=DIR dataset.limit=20000 epochs=4
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.dataset.loader import Loader


def build(experiment: Experiment, device: str) -> tuple[nn.Module, torch.optim.Optimizer, Loader]:
    settings, dataset, recipe = experiment.config, experiment.build("dataset"), experiment.build("optimizer")
    data = dataset.open(device, settings["batch_size"], settings["seed"])
    torch.manual_seed(settings["seed"])
    model = experiment.build("model").build(dataset.image, dataset.classes).to(device).train()
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    return model, optimizer, data


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Loader, step: int, cast: Any = None) -> None:
    """Train on the batch of a step; ``cast`` is a context for the forward pass, as of autocast."""
    x, y = data.batch(step)
    optimizer.zero_grad()
    if cast is None:
        loss = functional.cross_entropy(model(x), y)
    else:
        with cast:
            loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


def main() -> None:
    experiment = compose(["method=dense", *sys.argv[1:]])
    recipe = experiment.build("optimizer")
    model, optimizer, data = build(experiment, "cpu")
    total = experiment.config["epochs"] * data.steps_per_epoch
    milestones = [round(m * total) for m in recipe.lr_milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, recipe.lr_drop)
    for step in range(total):
        model.train()
        take_step(model, optimizer, data, step)
        schedule.step()
        if (step + 1) % data.steps_per_epoch == 0:
            model.eval()
            with torch.no_grad():
                right = [(model(x).argmax(1) == y).float() for x, y in data.eval_batches(500)]
            print(
                f"epoch {(step + 1) // data.steps_per_epoch}: top-1 {100 * torch.cat(right).mean():.2f} %", flush=True
            )


if __name__ == "__main__":
    main()
