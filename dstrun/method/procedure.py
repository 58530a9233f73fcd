"""What a method is, and what it does during training: hooks around a step, which do nothing unless it says otherwise.

Shape letters: A active connections of a layer, N those of the dense layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.config.option import option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import SparseLayer
from dstrun.system.transfer import numbers

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer; ``explored`` as the layer gives it, a float once it is part of an update."""

    layer: str
    active: int
    pruned: int
    grown: int
    candidates: int
    explored: float | Tensor

    @classmethod
    def of(cls, layer: SparseLayer, pruned: int = 0, grown: int = 0, candidates: int = 0) -> LayerUpdate:
        """Report on a layer after an update."""
        return cls(layer.name, layer.count, pruned, grown, candidates, layer.explored())


@dataclass(frozen=True)
class Update:
    """One update of the topology.

    Attributes:
        step: counted from 1; 0 before the first.
        cost: which gradients it needed.
        replaces_step: whether it took the place of the optimizer's step.
        samples: scored besides the step's own batch, each one pass forward and backward; a method that passes over a
            sample several times counts it as often.
        changes: one a layer, in the layers' order.
        skipped: whether the gradients it needed overflowed (fp16), so that nothing was pruned or grown.
    """

    step: int
    cost: Cost
    replaces_step: bool
    samples: int
    changes: list[LayerUpdate]
    skipped: bool = False

    def __post_init__(self) -> None:
        shares = numbers([change.explored for change in self.changes])
        changes = [replace(change, explored=share) for change, share in zip(self.changes, shares, strict=True)]
        object.__setattr__(self, "changes", changes)


@dataclass(frozen=True)
class ProductCounts:
    """How many connections of each layer take part in the three products of a training step."""

    forward: list[int]
    input_gradient: list[int]
    weight_gradient: list[int]

    @classmethod
    def of(cls, active: Sequence[int], weight_gradient: Sequence[int] | None = None) -> ProductCounts:
        """Let the active connections take part in all three, unless gradients of others are taken too."""
        return cls(list(active), list(active), list(active if weight_gradient is None else weight_gradient))


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
        """List the steps that later updates go back to: what foretells an update takes them before it."""
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


@dataclass(frozen=True)
class Setting:
    """What a method is given: the layers, the parts chosen beside it, and the run's length and seed.

    Attributes:
        counts: active connections each layer shall have; ``None`` where scores decide among all layers.
        budget: active connections all layers together shall have.
        sparsity: as asked for; the budget may be another by how the allocation treats layers.
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
    prune: Any
    grow: Any
    schedule: Any
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


@option
class Method:
    """A whole training procedure, chosen by ``method=``; an option inherits and overrides what is different.

    Attributes:
        parts: the groups it is composed of, of prune, grow and schedule.
        why: why it takes no others, as the end of a sentence.
        start: what the first step finds: ``sparse``, a random topology; ``all`` connections in the network's own
            initialization; ``none``, no layer ever has a topology.
        budget: whether ``sparsity`` sets how many connections are active at the end.
        dense: why it needs dense storage, as the end of a sentence; empty where it runs on every backend.
        alone: why it trains in a single process, as the end of a sentence; empty where several may share a batch.
        scopes: what ``scope`` may be; both only where it makes a difference.
        grows_at_zero: whether connections appear during training with weight 0.
        exact: whether the end has the budget to the connection; else what comes in channels stays below it.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    why: ClassVar[str] = ""
    start: ClassVar[str] = "sparse"
    budget: ClassVar[bool] = True
    dense: ClassVar[str] = ""
    alone: ClassVar[str] = ""
    scopes: ClassVar[tuple[str, ...]] = ("layer",)
    grows_at_zero: ClassVar[bool] = False
    exact: ClassVar[bool] = True

    @property
    def sparsity_is_learned(self) -> bool:
        """Whether training itself finds how many connections are active at the end."""
        return not self.budget and self.start == "all"

    @property
    def prunes(self) -> bool:
        """Return whether the network at the end has fewer weights than the one chosen, or may have."""
        return self.budget or self.start != "none"

    def allocates(self, scope: str) -> bool:
        """Return whether an allocation sets the layers' counts; with ``start=all`` and one pool, scores do."""
        return self.budget and (self.start == "sparse" or scope == "layer")

    def objection(self, config: dict[str, Any]) -> str:
        """Return why a configuration makes no sense, where the rules above do not: a sentence; empty where it does."""
        return ""

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect here, own or top-level ones: runs that differ in them are the same.

        Args:
            parts: the option chosen in each group, ``None`` where there is none; networks are not among them.
        """
        return set()

    def network(self, option: Any, build: Callable[[Any], nn.Module], budget: int) -> Any:
        """Return the option of the network that is trained, where it is not the one chosen.

        Args:
            option: of the group ``model``, as chosen.
            build: builds the network of an option without weights, on the meta device.
            budget: connections that shall be active at the end.

        Raises:
            ConfigError: no such network keeps to the budget.
        """
        return option

    def counts(self, model: nn.Module, budget: int) -> list[int] | None:
        """Return each layer's final count where the structure decides; ``None``: an allocation or scores do.

        Args:
            model: the network that is trained, without weights.
            budget: connections that shall be active at the end.

        Raises:
            ConfigError: the structure cannot keep to the budget.
        """

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Return the length of the whole run to a sparsity in epochs, where one training takes ``epochs``."""
        return epochs

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Let the layers compute their weights from other parameters, before the optimizer is built."""

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Return the optimizer's parameters, or groups of them with settings of their own."""
        return model.parameters()

    def procedure(self, setting: Setting) -> Procedure:
        """Start the procedure of one run."""
        return Procedure()

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict what a run computes, for ``dstrun plan``: stretches of steps, an update between two of them.

        Args:
            sizes: N of every layer.
            counts: what each shall have at the end; the same density everywhere where scores decide.
            schedule: the part of that name, if any.
            total: steps of the whole run.
        """
        yield total, ProductCounts.of(counts)

    def course(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, epochs: int, sparsity: float, per_epoch: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict a whole run; ``planned_phases`` is one training, and methods that train repeatedly override this."""
        return self.planned_phases(sizes, counts, schedule, self.epochs(epochs, sparsity) * per_epoch)

    def scored_samples(self, classes: int) -> int:
        """Predict how many samples are scored before the first step (``Update.samples``)."""
        return 0

    def fresh_samples(self, batch_size: int, classes: int) -> int:
        """Predict on how many samples of its own an update scores candidates; 0: on the batch of the step it replaces.

        Args:
            batch_size: of a step.
            classes: of the data set.
        """
        return 0

    def update_samples(self, classes: int) -> int:
        """Predict how many samples are scored between two stretches, on the network of the first."""
        return 0
