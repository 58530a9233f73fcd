"""The cells that unfinished runs were for."""

from __future__ import annotations

from collections.abc import Sequence

from dstrun.report.compare import Block, Key, Layout, Row, signature, values
from dstrun.report.fields import Field, outline
from dstrun.report.load import EMERGES, Run


def place(unfinished: Sequence[Run], found: Sequence[Block], layout: Layout) -> list[Run]:
    """Note each unfinished run at the cell it was for; return those that have no place.

    A run's name says its model, data set, method, sparsity and seed. Where several rows may be meant, the configuration
    in its folder decides; without one it may belong to any that lacks its seed.
    """
    return [run for run in unfinished if not any([_place(run, block, layout) for block in found])]


def _place(run: Run, block: Block, layout: Layout) -> bool:
    plan = outline(run, {f.key for f in layout.fields})
    parts = ((block.model, "model"), (block.dataset, "dataset"))
    if any(part not in ("", plan.get(f"choices.{key}")) for part, key in parts):
        return False  # the split is not known before the end
    at, column = values(layout.rows, plan), values(layout.columns, plan)
    kinds = [i for i, f in enumerate(layout.rows) if not f.setting]
    alike = [row for row in block.rows if all(row.values[i] == at[i] for i in kinds)]
    if any(layout.emerges(row.values, known) for row in alike for known in row.columns):
        at, column = (_emerged(layout.rows, at), _emerged(layout.columns, column))
    rows = [row for row in alike if row.values == at]
    if len(rows) > 1:
        same = {*signature(outline(run, None), layout.settings)}
        rows = [row for row in rows if same <= {*row.signature}] or rows  # whose data and network are known besides
    if not rows and len({row.suffix for row in alike}) < 2:
        rows = [_new(plan, at, alike, layout)]
        block.rows = sorted([*block.rows, *rows], key=layout.rank)
    rows = [row for row in rows if column in row.columns] or rows
    free = [row for row in rows if plan.seed not in {other.seed for other in row.cells.get(column, [])}]
    for row in free:
        row.unfinished.setdefault(column, []).append(run)
    return bool(free)


def _emerged(fields: Sequence[Field], key: Key) -> Key:
    """Replace the missing target sparsity by the one that training determines."""
    return tuple(EMERGES if f.key == "sparsity" and value == 0 else value for f, value in zip(fields, key, strict=True))


def _new(run: Run, at: Key, alike: Sequence[Row], layout: Layout) -> Row:
    """Make a row for runs of which none is finished, beside those that differ in settings of rows alone."""
    if alike:
        first = alike[0]
        return Row(first.label, first.name, first.variant, values=at, suffix=first.suffix, signature=first.signature)
    label = str(run.get("label"))
    said = [f.text(value) for f, value in zip(layout.rows, at, strict=True) if not f.setting]
    return Row(label, ", ".join(said) or label, values=at)
