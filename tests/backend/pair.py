"""Two runs that differ in their backend alone, step by step."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dstrun.backend.sparse.layer import Sparse
from dstrun.config.composition import compose
from dstrun.config.option import option
from dstrun.dataset.digits import Digits
from dstrun.dataset.images import Images
from dstrun.model.mobilenet import MobileNet, MobileNetV1
from dstrun.run.assemble import assemble as put_together
from dstrun.train.training import Training

CPU = torch.device("cpu")
WORDS = ["dataset=digits", "device=cpu", "sparsity=0.8", "batch_size=16", "optimizer.lr=0.05", "wandb=disabled"]
MODELS = {
    "mlp": ["model=mlp", "model.width=0.2"],
    "resnet20": ["model=resnet20", "model.width=0.25"],
    "vgg16_small": ["model=vgg16_small", "model.width=0.125", "batch_size=4"],
    "vit": ["model=vit", "model.width=0.25", "batch_size=4"],
    "mobilenet_v1": ["model=mobilenet_v1", "model.dense_depthwise=false", "sparsity=0.5"],
}
METHODS = {
    "set": ["method=set"],
    "sign": ["method=set", "prune=sign"],
    "mest": ["method=mest"],
    "bound": ["method=mest", "method.soft_bound=true"],
    "rigl": ["method=rigl"],
    "uniform": ["method=gse", "subset=uniform"],
    "grabo": ["method=gse", "subset=grabo"],
    "graest": ["method=gse", "subset=graest"],
}


@dataclasses.dataclass
class Pair:
    """A masked and a sparse run of the same words."""

    masked: Training
    sparse: Training

    def step(self) -> tuple[float, float]:
        """Take a step of both; give both losses."""
        losses = []
        for training in (self.masked, self.sparse):
            training.loss_sum.zero_()
            training.take_step()
            losses.append(training.loss_sum.item())
        return losses[0], losses[1]

    def same_topology(self) -> bool:
        pairs = zip(self.masked.layers, self.sparse.layers, strict=True)
        return all(torch.equal(a.topology.positions, b.topology.positions) for a, b in pairs)

    def differing(self) -> float:
        """Return the share of active connections that only one of both has."""
        pairs = [(a.topology.positions, b.topology.positions) for a, b in self.layers()]
        return sum((~torch.isin(a, b)).sum().item() for a, b in pairs) / sum(a.numel() for a, _ in pairs)

    def layers(self):
        return list(zip(self.masked.layers, self.sparse.layers, strict=True))

    def assert_close_values(self, **tolerance: float) -> None:
        for a, b in zip(self.masked.layers, self.sparse.layers, strict=True):
            torch.testing.assert_close(a.values(), b.values(), **tolerance)

    def gradients(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return output and gradients of the next batch: of active weights and of every other parameter."""
        found = []
        for training in (self.masked, self.sparse):
            x, y = training.data.batch(training.step)
            torch.manual_seed(0)
            output = training.model(x)
            functional.cross_entropy(output, y).backward()
            weights = {layer.name: layer.grad() for layer in training.layers}
            prunable = {f"{name}.weight" for name in weights}
            others = {n: p.grad for n, p in training.model.named_parameters() if n not in prunable}
            found.append({"": output.detach(), **weights, **others})
            training.optimizer.zero_grad()
        return found[0], found[1]


def train(words: list[str], *, kernel: str | None = None, double: bool = False) -> Pair:
    """Assemble both runs."""
    return Pair(*(assemble([*WORDS, *words, f"backend={b}"], kernel, double) for b in ("masked", "sparse")))


def assemble(words: list[str], kernel: str | None = None, double: bool = False) -> Training:
    """Assemble one.

    Every pixel has a factor of its own: those that are black on all images would else give connections of exactly
    equal gradients, and which of these RigL takes is nobody's promise.
    """
    experiment = compose(words)
    if experiment.choices["model"] == "vgg16_small":
        experiment.config["dataset"]["_target_"] = "pair.LargeDigits"
    if experiment.choices["model"] == "mobilenet_v1":
        experiment.config["model"]["_target_"] = "pair.Shallow"
    training = put_together(experiment, CPU)
    for module in training.model.modules():
        if isinstance(module, Sparse):
            module.kernel = kernel
    normalise, draws = training.data._normalise, torch.Generator().manual_seed(0)
    factor = 1 + torch.rand(experiment.build("dataset").image, generator=draws) / 10
    training.data._normalise = lambda x: normalise(x) * (factor.double() if double else factor)
    if double:
        training.model.double()
        training.loss_sum = training.loss_sum.double()
        training._loss = functools.partial(_loss, training)
    return training


def _loss(training: Training, x: Tensor, y: Tensor, add: bool = True) -> Tensor:
    """Return the loss without rounding logits to float32 as a run does."""
    loss = functional.cross_entropy(training.model(x), y)
    if add:
        training.loss_sum += loss.detach()
    return loss


@option
class Shallow(MobileNetV1):
    """Three separable convolutions: thirteen on digits make rounding errors grow a thousandfold with every step."""

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        return MobileNet(image[0], 16, [(24, 1), (32, 2), (32, 1)], self.dense_depthwise, classes)


@option
class LargeDigits(Digits):
    """Digits with every pixel four times as wide and high: the smallest images that VGG takes."""

    image: ClassVar[tuple[int, int, int]] = (1, 32, 32)

    def load(self, cache: Path | None = None) -> Images:
        images = Digits(limit=self.limit, validation=self.validation).load()
        large = {name: getattr(images, name).repeat(4, 2).repeat(4, 3) for name in ("train_x", "eval_x")}
        return dataclasses.replace(images, **large)
