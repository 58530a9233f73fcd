"""Published results to compare with: ``results/published.csv``, and users' files with the same columns.

``docs/published.md`` says what a column means, and which published number belongs to which run. What a row says of the
network and the method decides whether it does; what it says of the training (``training``) is held against the run's.
"""

from __future__ import annotations

import csv
import io
import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from dstrun.config.option import AtLeast, OneOf, Within, check_value, nearest
from dstrun.report.load import EMERGES, Run
from dstrun.report.training import Training, compare, family, is_training, option, preset, same
from dstrun.system.trouble import ConfigError, why

CONFIDENCE = (
    "verified", "inferred", "recalled-high", "recalled-medium", "recalled", "recalled-low", "computed",
)  # fmt: skip
"""How sure a row is, surest first; what is ``computed`` is a count that nobody published, and stands beside no run."""

REQUIRED = ("dataset", "model", "method", "sparsity", "metric", "value", "source", "confidence")

SAME = 0.0005
"""How far two sparsities may be apart: papers print 0.8889 for 8/9."""


class Footnote(NamedTuple):
    """What the foot of a table says of a published number: where it stands, how the trainings compare, and the note."""

    cite: str
    training: Training
    note: str

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.cite, self.training.said, self.note)))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A row: a published number, what it is of in our words, where it stands and how sure it is.

    ``None`` and ``""`` are empty cells. ``epochs`` is of one training.
    """

    dataset: str
    model: str
    method: str
    allocation: str = ""
    settings: str = ""
    sparsity: Annotated[float, Within(0, 1, high_open=True)] | None
    metric: str
    value: float | None
    std: Annotated[float, AtLeast(0)] | None = None
    n: Annotated[int, AtLeast(1)] | None = None
    epochs: Annotated[int, AtLeast(1)] | None = None
    source: str
    table: str = ""
    confidence: Annotated[str, OneOf(*CONFIDENCE)]
    paper_method: str = ""
    paper_model: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name, hint in _hints().items():
            value = getattr(self, name)
            if value == "" and name in REQUIRED:
                raise ConfigError(f"{name} is empty")
            check_value(name, value, hint)
        if self.value is None and not self.note:
            raise ConfigError("value is empty, and no note says why")
        if wrong := [word for word in self.settings.split() if not all(word.partition("="))]:
            raise ConfigError(f"settings={self.settings} must be overrides as on the command line, not {wrong[0]}")

    @property
    def words(self) -> dict[str, str]:
        """Return the settings by key."""
        return dict(word.split("=", 1) for word in self.settings.split())

    @property
    def cite(self) -> str:
        """Return where the number stands, and how sure it is."""
        return f"{', '.join(filter(None, (self.source, self.table)))} ({self.confidence})"

    def training(self, run: Run) -> Training:
        """Compare the training that the source is known to have had with that of a run which the row fits."""
        known = {key: word for key, word in self.words.items() if is_training(key, self.allocation)}
        known |= {"epochs": self.epochs} if self.epochs else {}
        known |= {"allocation": self.allocation} if self.allocation else {}
        return compare(run, {"dataset.limit": "null"} | known, self.method, self.metric)

    def footnote(self, run: Run) -> Footnote:
        """Return what the foot of a table says beside a run."""
        return Footnote(self.cite, self.training(run), self.note)

    def fits(self, run: Run) -> bool:
        """Return whether a finished run of the same data, model, method, allocation and metric is the same experiment.

        It may have been trained otherwise.
        """
        if self.value is None or self.sparsity is None or self.confidence == "computed":
            return False
        sparsity = run.realised if run.sparsity == EMERGES else run.sparsity
        wanted = _usual(self.model, self.method, self.allocation) | self.words
        return abs(self.sparsity - sparsity) <= SAME and all(
            _holds(run, key, value, absent=key not in self.words)
            for key, value in wanted.items()
            if not is_training(key, self.allocation)
        )


@dataclass
class Published:
    """Files of published results; a later one wins over an earlier."""

    files: Sequence[Sequence[Reference]]

    def __post_init__(self) -> None:
        self._rows: dict[tuple[str, ...], list[tuple[int, Reference]]] = {}
        for place, file in enumerate(self.files):
            for row in file:
                key = (row.dataset, row.model, row.method, family(row.allocation), row.metric)
                self._rows.setdefault(key, []).append((-place, row))

    def find(self, run: Run, metric: str) -> list[Reference]:
        """Find what was published for a finished run; ``metric`` is a dotted key of its record.

        Best first: from the last file, after as many epochs, after unknown ones, after the nearest number of them; of
        those the one with fewest settings of training that differ or are not known, the surest, with a standard
        deviation, in the file's order. Nothing for accuracy, or anything else, of a run that kept validation images
        apart: published results are of the test images.
        """
        if run.get("accuracy.split") != "test":
            return []
        chosen = [run.get(f"choices.{group}", "") for group in ("dataset", "model")]
        key = (*chosen, run.get("label", ""), family(run.get("choices.allocation", "")), metric)
        found = [(place, row) for place, row in self._rows.get(key, []) if row.fits(run)]
        return [row for _, row in sorted(found, key=lambda pair: (pair[0], *_rank(pair[1], run)))]


def references(paths: Iterable[Path | str] = ()) -> Published:
    """Read the shipped file and users' own.

    Raises:
        ConfigError: a file cannot be read, or a row is wrong; one sentence with file and line.
    """
    return Published([read(path) for path in (shipped(), *paths)])


def shipped() -> Path:
    """Find ``results/published.csv``: in the package where it is installed, beside it in a clone."""
    package, clone = Path(__file__).parents[1:3]
    inside = package / "results" / "published.csv"
    return inside if inside.exists() else clone / "results" / "published.csv"


def read(path: Path | str) -> list[Reference]:
    """Read a file of published results.

    Raises:
        ConfigError: it cannot be read, lacks a column, has an unknown one, or a row is wrong or there twice.
    """
    try:
        rows = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8-sig"), newline=""), strict=True)
        columns = rows.fieldnames or ()
        _check_columns(path, columns)
        lines: dict[tuple[Any, ...], int] = {}
        found = []
        for cells in rows:
            try:
                row = _row(cells)
            except ConfigError as error:
                raise ConfigError(f"{path} line {rows.line_num}: {error}") from None
            if lines.setdefault(_identity(row), rows.line_num) != rows.line_num:
                raise ConfigError(f"{path} line {rows.line_num} repeats line {lines[_identity(row)]}")
            found.append(row)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is not a CSV file: {error}") from error
    return found


def _check_columns(path: Path | str, columns: Sequence[str]) -> None:
    known = [field.name for field in fields(Reference)]
    for name in columns:
        if name not in known:
            raise ConfigError(f"{path}: column {name} is not known: choose {', '.join(known)}{nearest(name, known)}")
    if missing := [name for name in REQUIRED if name not in columns]:
        raise ConfigError(f"{path} lacks the column {missing[0]}")


def _row(cells: dict[str, str | None]) -> Reference:
    if None in cells or None in cells.values():
        raise ConfigError(f"has {'more' if None in cells else 'fewer'} cells than there are columns")
    return Reference(**{name: _value(name, (word or "").strip()) for name, word in cells.items()})  # type: ignore[arg-type]


def _value(name: str, word: str) -> Any:
    """Read a cell as what its column holds; what is no number stays a word, which the row complains about."""
    if _hints()[name] in (str, _hints()["confidence"]):
        return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word or None


@cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Reference, include_extras=True)


def _identity(row: Reference) -> tuple[Any, ...]:
    """What two rows of one file may not share: all but the number, and what is said about it."""
    aside = ("value", "std", "n", "confidence", "paper_model", "note")
    return tuple(getattr(row, field.name) for field in fields(row) if field.name not in aside)


def _rank(row: Reference, run: Run) -> tuple[Any, ...]:
    """Sort key of what was published for a run, the best first."""
    training = row.training(run)
    apart = (len(training.differs) + len(training.unknown), len(training.differs))
    return _distance(row.epochs, run.get("config.epochs")), *apart, CONFIDENCE.index(row.confidence), row.std is None


def _distance(published: int | None, ours: Any) -> tuple[int, float]:
    """Sort key of training lengths: the same, unknown, then by ratio."""
    if published is None or not isinstance(ours, int | float) or ours <= 0:
        return 1, 0.0
    ratio = abs(math.log(published / ours))
    return (2, ratio) if ratio else (0, 0.0)


def _holds(run: Run, key: str, wanted: Any, *, absent: bool) -> bool:
    """Return whether a run was asked for a word; ``absent`` where its record does not have the key."""
    have = run.get(f"choices.{key}", run.get(f"config.{key}"))
    return absent if have is None else same(have, wanted)


@cache
def _usual(model: str, method: str, allocation: str) -> dict[str, Any]:
    """Return what a row means without saying so: the settings of its model and allocation, the parts of its method."""
    usual: dict[str, Any] = {"powerprop": 1.0}
    for group, name in {"model": model, "allocation": allocation}.items():
        usual |= {f"{group}.{key}": value for key, value in option(group, name).items() if key != "_target_"}
    defaults = [part for part in preset(method).get("defaults", []) if isinstance(part, dict)]
    parts = {key.removeprefix("override /"): name for part in defaults for key, name in part.items()}
    return usual | {key: parts[key] for key in ("prune", "grow") if key in parts}
