"""A criterion that no module knows: plan and run ask it what they have to know, and count the same."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.layer.criterion import Cost
from dstrun.layer.growth import GrowthContext
from dstrun.layer.topology import draw_distinct, inactive
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan_flops

WORDS = ["dataset=digits", "model=mlp", "epochs=1", "sparsity=0.9", "threads=1", "wandb=disabled", "schedule.updates=3"]


class Some:
    """Scores the gradients of a fifth of the inactive connections, drawn uniformly."""

    cost: ClassVar[Cost] = Cost.CANDIDATE_GRAD
    regrow: ClassVar[bool] = False
    aggregates: ClassVar[bool] = False

    def candidates(self, context: GrowthContext) -> torch.Tensor:
        count = self.expected_candidates(context.active, context.size)
        return inactive(context.blocked, draw_distinct(context.free, count, context.generator))

    def score(self, gradient: torch.Tensor, positions: torch.Tensor, context: GrowthContext) -> torch.Tensor:
        return gradient.abs()

    def expected_candidates(self, active: int, size: int) -> int:
        return (size - active) // 5


class All(Some):
    """Scores the gradients of all inactive connections, as candidates, and leaves out to say so."""

    expected_candidates: ClassVar[None] = None  # type: ignore[assignment]

    def candidates(self, context: GrowthContext) -> torch.Tensor:
        return inactive(context.blocked, torch.arange(context.free))


class Paper(Some):
    """Is counted by its paper as if it scored half as many candidates as there are active connections."""

    paper_candidates: ClassVar[float] = 0.5


class Own(Experiment):
    """An experiment whose grow criterion stands in no configuration."""

    grow: ClassVar[Any] = None

    def build(self, group: str) -> Any:
        return self.grow if group == "grow" else super().build(group)


def own(criterion: Any, *words: str) -> Own:
    made = compose([*WORDS, *words])
    return type("Made", (Own,), {"grow": criterion})(made.config, made.choices)


@pytest.mark.parametrize("backend", ["masked", "sparse"])
@pytest.mark.parametrize("words", [(), ("method.batch=fresh", "method.samples_per_class=2")], ids=["current", "fresh"])
@pytest.mark.parametrize("criterion", [Some(), All()], ids=["some", "all"])
def test_the_plan_counts_what_the_run_counts(criterion: Any, words: tuple[str, ...], backend: str) -> None:
    experiment = own(criterion, *words, f"backend={backend}")
    planned = plan_flops(Blueprint(experiment))
    training = assemble(experiment, torch.device("cpu"))
    training.model.train()
    while training.step < training.total_steps:
        training.take_step()
    assert training.updates == planned["updates"] == 3
    assert training.flops.train == planned["train"]
    assert training.flops.executed == planned["executed_train"]


def test_the_formula_of_the_paper_asks_the_criterion() -> None:
    def ratio(criterion: Any) -> float:
        return plan_flops(Blueprint(own(criterion)))["train_x_dense_paper"]

    experiment = own(Some())
    blueprint = Blueprint(experiment)
    cost, active, interval = blueprint.cost, blueprint.counts, experiment.build("schedule").recipe_interval_steps
    sparse = cost.forward(active)

    def by_hand(candidates: float) -> float:
        return (3 * sparse * interval + 2 * sparse + candidates) / (interval + 1) / (3 * cost.forward())

    free = [layer.size - count for layer, count in zip(cost.layers, active, strict=True)]
    assert ratio(Some()) == pytest.approx(by_hand(cost.forward([n // 5 for n in free])), rel=1e-12)
    assert ratio(All()) == pytest.approx(by_hand(cost.forward(free)), rel=1e-12)
    assert ratio(Paper()) == pytest.approx(by_hand(sparse / 2), rel=1e-12)
