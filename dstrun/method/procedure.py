"""What a method does during training: hooks around a step, which do nothing by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.layer.interface import SparseLayer, carried
from dstrun.method.update import ProductCounts, Update

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from dstrun.layer.criterion import GrowCriterion
    from dstrun.prune.criterion import PruneCriterion
    from dstrun.schedule import Schedule


class Procedure:
    """Hooks of one run; the training loop calls each at every step, counted from 1."""

    prepares: ClassVar[bool] = False
    """Whether ``prepare`` does anything; its memory is measured then."""

    plain: ClassVar[bool] = True
    """Whether every step without an update is a forward and backward pass and the optimizer's step, nothing else. Not
    inherited: a class with hooks of its own has to say so."""

    own: Sequence[Optimizer] = ()
    """Optimizers of parameters that the run's optimizer does not have, stepped with it. The rate of each group is its
    ``initial_lr``, times what the schedule leaves of the first rate; their state is in ``state``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.plain = cls.__dict__.get("plain", False)

    def prepare(self) -> Update | None:
        """Score and prune before the first step; not called where a run continues."""

    def updates_at(self, step: int) -> bool:
        """Return whether the topology is updated at a step."""
        return False

    def remembered(self) -> list[int]:
        """List the steps that later updates go back to: a prediction of an update takes them before it."""
        return []

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Return where a step, counted from 0, stands in the schedule of the learning rate: its step of how many."""
        return step, total

    def penalty(self, step: int) -> Tensor | None:
        """Return what a step adds to the loss it minimises; reported losses are without it."""

    def before_step(self, step: int) -> Update | None:
        """Prepare the step, or update the topology on samples of its own."""

    def after_backward(self, step: int) -> Update | None:
        """Change gradients; or update the topology in place of the optimizer's step, by returning an update."""

    def after_step(self, step: int) -> Update | None:
        """Update the topology after the optimizer's step; the gradients of the step are still there."""

    def products(self) -> ProductCounts | None:
        """Count what the next step computes; ``None``: the active connections of every layer in all three products."""

    def counted(self) -> Tensor | None:
        """Count on the device what the step computes, after its forward pass; ``None``: ``products`` says it for free.

        Returns:
            (3, L) int64: the connections of each layer in each of the three products.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides network, layers and optimizer; plain containers and tensors only."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""

    def release(self) -> None:
        """Put what the method has added to the network, parametrizations aside, into its own weights.

        Called once training is over, so that the network chosen computes the same without the method.
        """


def check_carried(procedure: Procedure, layers: Sequence[SparseLayer], grows: bool, steps: Iterable[int]) -> None:
    """Refuse an optimizer whose state updates would leave stale; it has to have some.

    Args:
        procedure: of the run.
        layers: of the network.
        grows: whether connections appear in training.
        steps: that are left.

    Raises:
        ConfigError: one of them updates, and the optimizer keeps such state.
    """
    if any(map(procedure.updates_at, steps)):
        for layer in layers:
            carried(layer, grows)


@dataclass(frozen=True)
class Setting:
    """What a method is given: the layers, the parts chosen beside it, and the run's length and seed.

    ``prune``, ``grow`` and ``schedule`` are there where the method has them among its ``parts``.

    Attributes:
        counts: active connections each layer shall have; ``None`` where scores decide among all layers.
        budget: active connections all layers together shall have.
        sparsity: the target; the budget may differ from it, depending on the allocation.
        total_steps: of the whole run.
        nominal_steps: of one training, of which a method may make several.
        steps_per_epoch: of which both are multiples.
        image: (C, H, W) of a training image.
        strict: refuse a layer without connections instead of warning.
        fresh_pass: ``fresh_pass(step, samples)`` runs a forward and backward over that many training samples drawn
            for the step, or as many as a batch has (``None``), leaves normalization statistics as they were, and
            returns how many samples it took.
        overflowed: ``overflowed(finite)`` says whether gradients of the pass that looked for candidates overflowed
            (fp16), given whether those of each layer's candidates are finite; an update on them is left out.
        samples: ``samples(step, per_class)`` draws as many training samples of every class: images and labels.
        loss: ``loss(logits, labels)``, the mean over samples that training minimises.
        rate: ``rate(step, total)``, the learning rate of a step, counted from 0, of a schedule so long.
    """

    layers: Sequence[SparseLayer]
    prune: PruneCriterion
    grow: GrowCriterion
    schedule: Schedule
    scope: str
    counts: Sequence[int] | None
    budget: int
    sparsity: float
    total_steps: int
    nominal_steps: int
    steps_per_epoch: int
    image: tuple[int, int, int]
    classes: int
    seed: int
    strict: bool
    model: nn.Module
    optimizer: Any
    fresh_pass: Callable[[int, int | None], int]
    overflowed: Callable[[Iterable[Tensor]], bool]
    samples: Callable[[int, int], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    rate: Callable[[int, int], float]
