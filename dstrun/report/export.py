"""Two tidy files for any other program: one of all epochs, one of all runs.

Values are as runs left them: whole numbers stay whole, what is unknown is null; CSV, which spreadsheets open, has a
quote before text that begins like a formula. FLOPs are floating-point numbers, as a long training passes 2^63 of them.
The same runs give the same bytes, whatever their number in little memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrun.report import load
from dstrun.system import safe
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import whole

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("parquet", "csv")
BATCH_ROWS = 20_000
"""Rows that are held in memory, and a row group of a Parquet file."""

IDENTITY = ("run", "folder", "model", "dataset", "label", "sparsity", "seed")
"""Columns that both files begin with; ``sparsity`` is what was asked for."""
STATUS = ("message", "epoch", "epochs")
"""What is told of ``status.json``."""
REAL = ("accuracy.", "flops.", "seconds.", "parameters.sparsity", "parameters.explored")
WHOLE = ("memory.", "status.epoch")
"""How columns of ``runs`` begin that hold real, or whole, numbers, even where all happen to be whole, or null."""


@load.uncollected()
def export(runs: Sequence[load.Run], out: Path, form: str, now: float) -> list[Path]:
    """Write ``epochs`` and ``runs``, each whole or not at all.

    Args:
        runs: any, done or not.
        out: folder to write to.
        form: ``parquet`` or ``csv``.
        now: unix time that heartbeats are held against.

    Returns:
        The two files.

    Raises:
        ConfigError: they cannot be written.
    """
    settings = [load.setting(run) for run in runs]
    try:
        out.mkdir(parents=True, exist_ok=True)
        table = run_table(runs, settings, now)
        with rows(out / f"runs.{form}", table.schema) as add:
            add(table)
        del table
        with rows(out / f"epochs.{form}", epoch_schema()) as add:
            for batch in epoch_batches(runs, settings):
                add(batch)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {why(error)}") from error
    return [out / f"epochs.{form}", out / f"runs.{form}"]


@contextmanager
def rows(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Return what adds rows to a file, Parquet or CSV, which appears when all of it is there."""
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

    with whole(path) as sink:  # Python's own, for its errors
        if path.suffix == ".csv":
            with CSVWriter(sink, spreadsheet(schema.empty_table()).schema) as file:
                yield lambda table: file.write_table(spreadsheet(table))
        else:
            with ParquetWriter(sink, schema, compression="zstd") as file:
                yield file.write_table


def spreadsheet(table: pa.Table) -> pa.Table:
    """Return rows whose text no spreadsheet takes for a formula and no terminal obeys, names of columns included."""
    import pyarrow as pa

    columns = [column.combine_chunks() for column in table.columns]
    for i, column in enumerate(columns):
        if pa.types.is_string(column.type):
            words = column.dictionary_encode()
            columns[i] = pa.array(map(safe.cell, words.dictionary.to_pylist()), pa.string()).take(words.indices)
    return pa.table(columns, names=list(map(safe.cell, table.column_names)))


def identity(run: load.Run, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``IDENTITY``."""
    choices, config = setting["choices"], setting["config"]
    values = choices.get("model"), choices.get("dataset"), setting["label"], config.get("sparsity"), config.get("seed")
    return dict(zip(IDENTITY, (run.id, run.folder.as_posix(), *values), strict=True))


def epoch_schema() -> pa.Schema:
    """Return the columns of ``epochs``: the run's, and those of ``metrics.csv``."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64()}
    types = {name: pa.string() for name in IDENTITY} | {"sparsity": pa.float64(), "seed": pa.int64()}
    types |= {name: kinds.get(kind, pa.string()) for name, kind in load.METRICS.items()} | {"flops": pa.float64()}
    return pa.schema(list(types.items()))


def epoch_batches(runs: Sequence[load.Run], settings: Sequence[dict[str, Any]]) -> Iterator[pa.Table]:
    """Return the rows of ``epochs``, by run and epoch, so many at a time."""
    schema = epoch_schema()
    held: dict[str, list[Any]] = {name: [] for name in schema.names}
    for run, setting in zip(runs, settings, strict=True):
        found = load.metric_columns(run, load.METRICS)
        count = len(found.get("epoch", ()))
        same = identity(run, setting)
        for name, values in held.items():
            values += found.get(name) or [same.get(name)] * count
        if len(held["epoch"]) >= BATCH_ROWS:
            yield _table(held, schema)
            held = {name: [] for name in schema.names}
    yield _table(held, schema)


def run_table(runs: Sequence[load.Run], settings: Sequence[dict[str, Any]], now: float) -> pa.Table:
    """Return a row a run: its identity and state, then everything else that is known of it, by name."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in (*IDENTITY, "state")}
    for count, (run, setting) in enumerate(zip(runs, settings, strict=True)):
        row = _row(run, setting, now)
        columns |= {name: [None] * count for name in row if name not in columns}
        for name, values in columns.items():
            values.append(row.get(name))
    # A setting that is null in all runs is left out: nothing says what it would hold.
    unset = {name for name, values in columns.items() if name.startswith("config.") and set(values) == {None}}
    names = [*IDENTITY, "state", *sorted(set(columns) - unset - {*IDENTITY, "state"})]
    known = {name: epoch_schema().field(name).type for name in IDENTITY}
    return _table(columns, pa.schema([(name, known.get(name) or _type(name, columns[name])) for name in names]))


def _row(run: load.Run, setting: dict[str, Any], now: float) -> dict[str, Any]:
    rest = {key: value for key, value in (run.record or {}).items() if key not in ("id", "state", "label", "seed")}
    rest |= {"experiment": setting["config"].get("experiment"), "status": {key: run.status.get(key) for key in STATUS}}
    rest |= {key: setting[key] for key in ("choices", "config")}
    return identity(run, setting) | {"state": run.state_at(now)} | _flat(rest)


def _flat(node: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return values by dotted name; a list, and what has a name a layer, as JSON."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and key != "backends":
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = json.dumps(value) if isinstance(value, dict | list) else value
    return found


def _type(name: str, values: Sequence[Any]) -> pa.DataType:
    """Find the type of a column; where values are unlike each other, text."""
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pa.bool_()
    if not kinds <= {int, float} or not (kinds or name.startswith(REAL + WHOLE)):
        return pa.string()
    if float in kinds or name.startswith(REAL):
        return pa.float64()
    return pa.int64() if all(value is None or abs(value) < 2**63 for value in values) else pa.float64()


def _table(columns: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.table([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of one type; what cannot be of it, as a word in the place of a number, is null."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return pa.array([_fit(value, kind) for value in values], kind)


def _fit(value: Any, kind: pa.DataType) -> Any:
    if kind == "string":
        return value if value is None or isinstance(value, str) else json.dumps(value)
    if kind == "double":
        return float(value) if isinstance(value, int | float) else None
    return value if isinstance(value, int) and abs(value) < 2**63 else None
