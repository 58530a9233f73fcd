"""Tables of a paper from runs: every cell names the seeds and the runs behind it.

Seeds are averaged over and nothing else is: runs whose configuration differs in any other way stand in rows of their
own (``compare``). The standard deviation is that of a sample, with n - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from dstrun.config.option import nearest
from dstrun.report.compare import Layout, pivot
from dstrun.report.fields import Field, resolve
from dstrun.report.format import Column, html, render
from dstrun.report.load import Run
from dstrun.report.published import Footnote
from dstrun.report.table.cells import Options, Part
from dstrun.report.table.latex import document, named
from dstrun.report.table.measure import measure
from dstrun.report.table.notes import notes
from dstrun.report.table.unfinished import place
from dstrun.report.terminal import Block, text
from dstrun.system import safe
from dstrun.system.trouble import ConfigError


@dataclass(frozen=True)
class Preset:
    """What a table shows unless asked otherwise, as typed: fields of rows and of columns, and values."""

    rows: str
    columns: str
    values: str


PRESETS = {
    "accuracy": Preset("method", "sparsity", "accuracy.top1"),
    "memory": Preset(
        "method,sparsity", "",
        "memory.model_bytes,memory.optimizer_bytes,memory.activation_bytes,memory.index_bytes,memory.method_bytes,"
        "memory.transient_bytes,memory.peak_bytes,memory.peak_bytes/dense",
    ),
    "flops": Preset(
        "method,sparsity", "",
        "accuracy.top1,flops.train,flops.train_x_dense,flops.train/rigl,flops.executed_x_dense,flops.inference,"
        "flops.inference_x_dense",
    ),
    "cost": Preset(
        "method,sparsity", "",
        "accuracy.top1,config.epochs,seconds.total,seconds.train,seconds.train/dense,seconds.epoch_median,seconds.step_median,"
        "seconds.update_median",
    ),
}  # fmt: skip


@dataclass(repr=False)
class Table:
    """A table: ``parts`` for readers, one per block, ``cells`` for programs, one row per cell and value, and ``runs``.

    A part is its title, its rows and its columns; ``over`` names the fields of the columns.
    Printed it is Markdown, in a notebook HTML.
    """

    parts: list[tuple[str, list[dict[str, Any]], list[Column]]]
    cells: list[dict[str, Any]]
    runs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    over: str = ""
    preset: str = "table"

    def render(
        self, fmt: str = "md", *, caption: str = "", label: str = "", names: Mapping[str, str] | None = None
    ) -> str:
        """Render as md, latex or html with the notes below, or as csv or json in long form, one row per cell and value.

        Args:
            fmt: one of these.
            caption: of the environment that latex has.
            label: to refer to it by.
            names: further names by key. latex writes names in place of keys; md and html where this is not None.

        Raises:
            ConfigError: an unknown format.
        """
        if fmt == "md":
            return text(self.blocks(names)).strip()
        if fmt == "latex":
            return document(self.parts, self.notes, self.preset, self.over, caption, label, names)
        if fmt == "html":
            texts = [html(rows, columns, safe.line(title)) for title, rows, columns in self._named(names)]
            notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
            return "\n".join([*texts, f'<ul class="notes">{notes}</ul>' if notes else ""]).strip()
        return render(self.cells, columns_of(self.cells), fmt)

    def blocks(self, names: Mapping[str, str] | None = None) -> list[Block | str]:
        """Return parts and notes for readers; ``names`` as for ``render``."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        blocks = [Block(rows, columns, title) for title, rows, columns in self._named(names)]
        return [*blocks, *([notes] if notes else [])]

    def _named(self, names: Mapping[str, str] | None) -> list[Any]:
        return self.parts if names is None else [named(part, names) for part in self.parts]

    def __repr__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        return self.render("html")

    def render_runs(self, fmt: str = "md") -> str:
        """Render the runs behind the cells, a row each."""
        return render(self.runs, columns_of(self.runs), fmt)


def columns_of(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return a column for every key of rows, which all have the same."""
    return [Column(key) for key in (rows[0] if rows else ())]


def build(runs: Sequence[Run], preset: str = "accuracy", options: Options | None = None) -> Table:
    """Build a table of ``PRESETS``.

    Raises:
        ConfigError: an unknown preset, or a field or value that no run has.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset} is not known: choose {', '.join(PRESETS)}{nearest(preset, PRESETS)}")
    usual, options = PRESETS[preset], options or Options()
    done = [run for run in runs if run.done]
    if options.against and done and options.against not in (labels := {str(run.get("label")) for run in done}):
        raise ConfigError(
            f"--against {options.against} is not a method of these runs{nearest(options.against, labels)}"
        )

    def fields(asked: str | None, preset: str, word: str) -> tuple[Field, ...]:
        return tuple(resolve(name, done, word) for name in _split(preset if asked is None else asked))

    layout = Layout(fields(options.rows, usual.rows, "rows="), fields(options.columns, usual.columns, "cols="))
    asked = usual.values if options.values is None else options.values
    values = [measure(name, done) for name in _split(asked)] if done else []
    found = pivot(done, layout)
    lost = place([run for run in runs if not run.done], found, layout)
    table = Table([], [], preset=preset, over=", ".join(f.name for f in layout.columns))
    footnotes: dict[Footnote, str] = {}
    signs: set[str] = set()
    for block in found:
        part = Part(block, layout, values, options, footnotes, signs)
        table.parts.append((block.title, part.lines, part.columns()))
        table.cells += part.cells
        table.runs += part.runs()
    table.notes = notes(found, lost, layout, values, options, footnotes, signs)
    return table


def _split(names: str) -> list[str]:
    return [name for name in names.split(",") if name]
