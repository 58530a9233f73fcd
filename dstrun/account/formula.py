"""The cost of a training step of each method as a formula, read from the phases ``dstrun plan`` counts. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dstrun.allocation.budget import budget
from dstrun.layer.criterion import Cost
from dstrun.method.interface import Method

SIZE, PER_EPOCH = 10_000, 50
"""One layer and steps an epoch, enough of both to tell what changes."""


def step(method: Method, grow: Any, schedule: Any, *, classes: int, epochs: int, sparsity: float) -> str:
    """Return the FLOPs of a training step for one sample, as ``docs/accounting.md`` does.

    f_D stands for a forward pass with every connection, f_S with those that are active at the end, f_B with others
    that a backward pass takes in, f_C with the candidates for growth; (t) marks what changes on the way.

    Args:
        method: whose course is read.
        grow: the grow criterion, if any.
        schedule: the part of that name, if any.
        classes: of the data set, on which the number of samples scored depends.
        epochs: of one training.
        sparsity: asked for.

    Returns:
        For example ``3 f_S; updates 2 f_S + f_D``.
    """
    active = budget(SIZE, sparsity)
    course = [found for _, found in method.course([SIZE], [active], schedule, epochs, sparsity, PER_EPOCH)]
    kinds = ("forward", "input_gradient", "weight_gradient")
    taken = [[getattr(products, kind)[0] for products in course] for kind in kinds]
    passes = [_name(counts, active, "f_S" if counts == taken[0] else "f_B") for counts in taken]
    terms = [f"{'at most ' if method.sparsity_is_learned else ''}{_sum(passes)}"]
    if grow is not None and grow.cost is not Cost.NONE:
        update = _sum([*passes[:2], "f_D" if grow.cost is Cost.DENSE_GRAD else "f_C"])
        update += " + f_agg" if grow.aggregates else ""
        terms.append(f"{'samples of updates' if method.fresh_samples(1, classes) else 'updates'} {update}")
    if samples := method.scored_samples(classes):
        terms.append(f"once {samples} x 3 f_D")
    if (samples := method.update_samples(classes)) and len(course) > 1:
        before = _name(taken[0][:-1], active, "f_S")
        terms.append(f"{'once' if len(course) == 2 else 'each round'} {samples} x 3 {before}")
    return "; ".join(terms)


def _name(counts: Sequence[int], active: int, other: str) -> str:
    """Name the cost of a pass by the connections that take part on the way: ``other`` unless all or the end's do."""
    if len(set(counts)) > 1:
        return f"{other}(t)"
    return {active: "f_S", SIZE: "f_D"}.get(counts[0], other)


def _sum(terms: Sequence[str]) -> str:
    """Add equal terms up: ``2 f_S + f_D``."""
    counts = {term: terms.count(term) for term in terms}
    return " + ".join(term if count == 1 else f"{count} {term}" for term, count in counts.items())
