"""What a training step costs by a method, in words: read off the course that ``dstrun plan`` counts. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dstrun.grow.criterion import Cost
from dstrun.method.procedure import Method

SIZE, ACTIVE, STEPS, EPOCHS = 10_000, 1_000, 10_000, 100
"""One layer and one run, long enough to tell what changes."""


def step(method: Method, grow: Any, schedule: Any, classes: int) -> str:
    """Say the FLOPs of a training step for one sample, as ``docs/accounting.md`` does.

    f_D stands for a forward pass with every connection, f_S with those that are active at the end, f_B with others
    that a backward pass takes in, f_C with the candidates for growth; (t) marks what changes on the way.

    Args:
        method: whose forecast is read.
        grow: the grow criterion, if any.
        schedule: the part of that name, if any.
        classes: of the data set, on which the samples scored before training depend.

    Returns:
        For example ``3 f_S; updates 2 f_S + f_D``.
    """
    target = ACTIVE if method.budget else SIZE
    stretches = method.course([SIZE], [target], schedule, EPOCHS, 1 - ACTIVE / SIZE, STEPS // EPOCHS)
    course = [products for _, products in stretches]
    kinds = ("forward", "input_gradient", "weight_gradient")
    taken = [[getattr(products, kind)[0] for products in course] for kind in kinds]
    passes = [_name(counts, "f_S" if counts == taken[0] else "f_B") for counts in taken]
    said = [_sum(passes)]
    if grow is not None and grow.cost is not Cost.NONE:
        update = _sum([*passes[:2], "f_D" if grow.cost is Cost.DENSE_GRAD else "f_C"])
        update += " + f_agg" if grow.aggregates else ""
        fresh = getattr(method, "batch", "current") == "fresh"
        said.append(f"{'samples of updates' if fresh else 'updates'} {update}")
    if samples := method.scored_samples(classes):
        said.append(f"once {samples} x 3 f_D")
    if (longer := method.epochs(EPOCHS, 1 - ACTIVE / SIZE) / EPOCHS) != 1:
        said.append(f"{longer:.3g} x steps")
    return "; ".join(said)


def _name(counts: Sequence[int], other: str) -> str:
    """Name the cost of a pass by the connections that take part on the way: ``other`` unless all or the end's do."""
    if len(set(counts)) > 1:
        return f"{other}(t)"
    return {SIZE: "f_D", ACTIVE: "f_S"}.get(counts[0], other)


def _sum(terms: Sequence[str]) -> str:
    """Add equal terms up: ``2 f_S + f_D``."""
    counts = {term: terms.count(term) for term in terms}
    return " + ".join(term if count == 1 else f"{count} {term}" for term, count in counts.items())
