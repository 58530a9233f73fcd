"""What a method does during training: hooks around a step, which do nothing unless a method says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dstrun.grow.criterion import Cost

if TYPE_CHECKING:
    from dstrun.layer import SparseLayer


@dataclass(frozen=True)
class Change:
    """What one update did to one layer."""

    layer: str
    active: int
    pruned: int
    grown: int
    candidates: int
    explored: float


@dataclass(frozen=True)
class Update:
    """One update of the topology.

    Attributes:
        step: counted from 1.
        cost: which gradients it needed.
        replaces_step: whether it took the place of the optimizer's step.
        samples: training samples scored besides the step's own batch.
        changes: one a layer, in the layers' order.
    """

    step: int
    cost: Cost
    replaces_step: bool
    samples: int
    changes: list[Change]


class Procedure:
    """Hooks of one run; the training loop calls each at every step, counted from 1."""

    def updates_at(self, step: int) -> bool:
        """Say whether the topology is updated at a step."""
        return False

    def before_step(self, step: int) -> Update | None:
        """Prepare the step, or update the topology on samples of its own."""

    def after_backward(self, step: int) -> Update | None:
        """Update the topology in place of the optimizer's step, which is left out where an update is returned."""

    def after_step(self, step: int) -> Update | None:
        """Update the topology after the optimizer's step."""


@dataclass(frozen=True)
class Setting:
    """What a method is given: the layers, the parts chosen beside it, and the run's length and seed.

    Attributes:
        fresh_pass: ``fresh_pass(step, samples)`` runs a forward and backward over that many training samples drawn
            for the step, leaves normalization statistics as they were, and returns how many samples it took.
    """

    layers: list[SparseLayer]
    prune: Any
    grow: Any
    schedule: Any
    scope: str
    total_steps: int
    classes: int
    seed: int
    fresh_pass: Callable[[int, int], int]


class Method(Protocol):
    """A whole training procedure, chosen by ``method=``."""

    parts: ClassVar[tuple[str, ...]]
    """The groups it is composed of, of allocation, prune, grow and schedule."""
    why: ClassVar[str]
    """Why it takes no others, as the end of a sentence."""

    def procedure(self, setting: Setting) -> Procedure:
        """Start the procedure of one run."""
        ...
