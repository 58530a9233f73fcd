"""ThiNet (Luo et al. 2017): remove the channels of a trained network that the next layer needs least.

Shape letters: B samples, C channels, D inputs of an output (C times the kernel's area, or times what is flattened),
L places, S places drawn, M outputs drawn (B x S), R channels removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Share, option
from dstrun.layer.criterion import Cost
from dstrun.method.finetuning import held
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.statistics import evaluating
from dstrun.method.update import ProductCounts, Update
from dstrun.system.lazy import torch
from dstrun.system.progress import say
from dstrun.system.stream import generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dstrun.method.structured.channels import Pair

CHUNK = 64
"""Samples whose patches are unfolded together."""


@option
class ThiNet(Method):
    """Train densely; remove channels layer by layer; train ``finetune`` x ``epochs`` more at the last learning rate.

    That is the last rate that is at least ``finetune_lr`` times the first, as a rate near 0 would recover nothing.

    Of ``samples_per_class`` training images a class, ``locations`` outputs of the reader each, the part that every
    channel has in them is recorded; channels are removed one by one so that the sum of squares of what is removed
    grows least (the paper's algorithm 1), and the others are scaled by least squares (equation 7). The same share
    is kept in every layer.
    """

    finetune: Annotated[float, Above(0)] = 0.1
    finetune_lr: Share = 0.01
    samples_per_class: Annotated[int, AtLeast(1)] = 10
    locations: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which removes channels, the same share in every layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which starts dense"
    alone: ClassVar[str] = "which traces channels in a single process"
    exact: ClassVar[bool] = False

    def allocates(self, scope: str) -> bool:
        """Return no allocation: the share of channels sets the layers' counts."""
        return False

    def counts(self, model: nn.Module, budget: int) -> list[int]:
        """Count the weights left by the largest share of channels within the budget.

        Raises:
            ConfigError: one channel of each layer is still more.
        """
        from dstrun.method.structured.channels import pairs, remaining, uniform

        found, _ = pairs(model)
        return remaining(model, found, uniform(model, found, budget, "thinet"))

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Add the fine-tuning, at least one epoch."""
        return epochs + max(1, round(self.finetune * epochs))

    def procedure(self, setting: Setting) -> Procedure:
        """Train, remove, train."""
        return Reconstruction(setting, self.samples_per_class, self.locations, self.finetune_lr)

    def course(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, epochs: int, sparsity: float, per_epoch: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the dense training and the fine-tuning."""
        yield epochs * per_epoch, ProductCounts.of(sizes)
        yield (self.epochs(epochs, sparsity) - epochs) * per_epoch, ProductCounts.of(counts)

    def update_samples(self, classes: int) -> int:
        """Count the one forward pass over the samples as a third of a pass forward and backward."""
        return -(-self.samples_per_class * classes // 3)


class Reconstruction(Procedure):
    """Removes channels once, after the last step of the dense training.

    Args:
        setting: of the run; its layers have every connection.
        samples_per_class: training images a class that are passed forward.
        locations: outputs drawn of each image, for every pair.
        least: of the highest learning rate, the share that the fine-tuning has at least.
    """

    def __init__(self, setting: Setting, samples_per_class: int, locations: int, least: float) -> None:
        from dstrun.method.structured.channels import Channels, uniform

        self.setting, self.samples_per_class, self.locations = setting, samples_per_class, locations
        self.held = held(setting, least)
        self.channels = Channels(setting.model, setting.layers)
        self.kept = uniform(setting.model, self.channels.pairs, setting.budget, "thinet")
        say(f"  {self.channels.summary()}")

    def updates_at(self, step: int) -> bool:
        """Return whether it is the last step of the dense training."""
        return step == self.setting.nominal_steps

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Stay at one step of the dense training's schedule."""
        dense = self.setting.nominal_steps
        return step if step < dense else self.held, dense

    def after_step(self, step: int) -> Update | None:
        """Remove channels, each layer's after those before it: one pass forward through the network."""
        from dstrun.method.structured.channels import run

        if not self.updates_at(step):
            return None
        setting, before = self.setting, [layer.count for layer in self.setting.layers]
        x, y = setting.samples(step, self.samples_per_class)
        thinned = {
            pair.consumer: partial(self.thin, pair, generator=generator(setting.seed, "reconstruct", step, index))
            for index, pair in enumerate(self.channels.pairs)
        }
        with torch.no_grad(), evaluating(setting.model):
            run(setting.model, x, thinned)
        return Update(step, Cost.NONE, False, -(-len(y) // 3), self.channels.changes(before))

    def thin(self, pair: Pair, x: Tensor, generator: torch.Generator) -> None:
        """Remove channels of one pair, and scale what reads the others.

        Args:
            pair: made and read.
            x: (B, ...) what the consumer reads.
            generator: draws outputs.
        """
        module = self.channels.modules[pair.consumer]
        assert isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        removed, scale = choose(
            contributions(module, x, pair.channels, self.locations, generator), self.kept[pair.producer]
        )
        self.channels.remove(pair, removed)
        rescale(module, scale)


def contributions(
    module: nn.Linear | nn.Conv2d, x: Tensor, channels: int, locations: int, generator: torch.Generator
) -> Tensor:
    """Return what every channel adds to outputs drawn at random: (M, C).

    Args:
        module: whose outputs are drawn.
        x: (B, ...) its input.
        channels: C, of its input.
        locations: S, a sample; an output unit and, if it has several, a place, with replacement.
        generator: on the CPU.
    """
    found = []
    weight = module.weight.flatten(1)
    for part in x.split(CHUNK):
        columns = _columns(module, part)
        size = (len(part), locations)
        place = torch.randint(columns.shape[2], size, generator=generator).to(x.device)
        unit = torch.randint(len(weight), size, generator=generator).to(x.device)
        seen = columns.gather(2, place[:, None].expand(-1, columns.shape[1], -1)).transpose(1, 2)
        found.append((seen * weight[unit]).flatten(0, 1).unflatten(1, (channels, -1)).sum(2))
    return torch.cat(found)


def _columns(module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Return what the outputs at every place read: (B, D, L)."""
    if isinstance(module, torch.nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)
    steps: Any = {"dilation": module.dilation, "padding": module.padding, "stride": module.stride}
    return torch.nn.functional.unfold(x, tuple(module.kernel_size), **steps)


def choose(parts: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Choose which channels go, greedily, and how the others make up for them.

    Args:
        parts: (M, C) what each channel adds to each output.
        kept: channels that stay.

    Returns:
        (R,) int64 those removed, in that order: each time the one with which the sum over outputs of the square of all
        that is removed is least, of equal ones the first; and (C,) factors of what stays, 0 for what goes, which
        bring the outputs nearest to what they were; of several such the nearest to 1.
    """
    gram = (parts.double().T @ parts.double()).cpu()
    channels = len(gram)
    shared, gone = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.bool)
    order = []
    for _ in range(channels - kept):
        growth = (2 * shared + gram.diagonal()).masked_fill(gone, torch.inf)
        index = int(growth.argmin())
        order.append(index)
        gone[index] = True
        shared += gram[index]
    scale, stays = torch.zeros(channels, dtype=torch.float64), ~gone
    missing = gram[stays][:, gone].sum(1, keepdim=True)
    scale[stays] = 1 + torch.linalg.lstsq(gram[stays][:, stays], missing, driver="gelsd").solution[:, 0]
    return torch.tensor(order, dtype=torch.int64, device=parts.device), scale.to(parts)


def rescale(module: nn.Linear | nn.Conv2d, scale: Tensor) -> None:
    """Multiply the weights that read each channel by its factor: (C,)."""
    weight = module.weight.detach().flatten(1)
    scaled = (weight.unflatten(1, (len(scale), -1)) * scale[:, None]).view_as(module.weight)
    if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
        module.weight = scaled  # type: ignore[assignment]
    else:
        module.weight.detach().copy_(scaled)
