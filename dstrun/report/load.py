"""Find run folders and read their files. Damaged files are reported, never as a traceback."""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from dstrun.allocation.budget import met
from dstrun.config.option import nearest
from dstrun.config.upgrade import upgrade
from dstrun.record import sealed, valid
from dstrun.record.valid import SILENT_SECONDS
from dstrun.record.writer import is_signed
from dstrun.system import process
from dstrun.system.bounded import parse_yaml
from dstrun.system.progress import say_once
from dstrun.system.trouble import ConfigError, why

EMERGES = 1.0
"""In the place of a sparsity where none was asked for and training found one: above all that can be asked for."""


NAMED = re.compile(r"-seed\d+-[0-9a-f]{8,16}$")
"""How the name of a run's folder ends, unless somebody has given it another."""

NUMBERS = re.compile(r"([0-9]+(?:\.[0-9]+)*)")

METRICS: dict[str, Callable[[str], Any]] = {
    "epoch": int, "step": int, "train_loss": float, "loss": float, "top1": float, "top5": float, "lr": float,
    "seconds": float, "flops": int, "peak_bytes": int, "resident_peak_bytes": int,
    "split": lambda word: word or None,
}  # fmt: skip
"""How the columns of ``metrics.csv`` are read."""


@dataclass(frozen=True)
class Run:
    """A run folder: ``record`` is what it left when done, or None; ``status`` its last sign of life, may be empty.

    Of a done run whose record was not asked for, ``record`` is None too.

    ``warnings`` has a sentence for each damaged file, which is treated as absent. ``apart`` is what tells it from
    runs of the same configuration (``report/apart.py``).
    """

    folder: Path
    id: str
    state: str
    record: dict[str, Any] | None
    status: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())
    apart: dict[str, Any] = field(default_factory=dict)
    beat: float | None = None
    """When ``status.json`` was written, by the file system's clock."""

    @property
    def done(self) -> bool:
        """Return whether the run has final numbers: a record, and a top-1 that is a number."""
        return self.state == "done" and self.top1 is not None

    @property
    def top1(self) -> float | None:
        """Return the final top-1 accuracy in percent, or None."""
        return number(self.get("accuracy.top1"))

    @property
    def seed(self) -> int:
        """Return the seed of a finished run."""
        return self.get("seed", 0)

    @property
    def sparsity(self) -> float:
        """Return the asked-for sparsity of a finished run, in [0, 1); ``EMERGES`` where training found one itself."""
        asked = float(number(self.get("config.sparsity")) or 0.0)
        return EMERGES if asked == 0 and self.realised > 0 else asked

    @property
    def realised(self) -> float:
        """Return the sparsity a finished run ended with, in [0, 1]."""
        return float(number(self.get("parameters.sparsity")) or 0.0)

    @property
    def met(self) -> bool:
        """Return whether a finished run ended with the sparsity asked for, if one was (``allocation.budget``)."""
        prunable, asked = number(self.get("parameters.prunable")), self.sparsity
        if not prunable or asked == EMERGES:
            return True
        return met((1 - self.realised) * prunable, round(prunable), asked)

    def get(self, key: str, default: Any = None) -> Any:
        """Look a dotted key up in the record, ``flops.train_x_dense``."""
        node: Any = self.record
        if node is None:
            return default
        for part in key.split("."):
            if not isinstance(node, dict) or node.get(part) is None:
                return default
            node = node[part]
        return node

    def state_at(self, now: float) -> str:
        """Return the state at a unix time.

        A running run is lost without a heartbeat for ``SILENT_SECONDS`` by the clock of its files, or if its process
        has gone from this machine; a heartbeat from the future, too, is none. A run that its scheduler will start again
        has said ``interrupted`` and stays so.
        """
        heartbeat = number(self.status.get("heartbeat"))
        beat = heartbeat if self.beat is None else self.beat
        if self.state == "running" and (
            heartbeat is None or beat is None or abs(now - beat) > SILENT_SECONDS or gone(self.status)
        ):
            return "lost"
        return self.state


def gone(said: dict[str, Any]) -> bool:
    """Return whether a process, of ``host``, ``machine``, ``pid`` and ``process_started``, was here and is no more."""
    here = said.get("host") == process.host() and said.get("machine", process.machine()) == process.machine()
    return here and process.gone(said.get("pid"), said.get("process_started"))


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def runs(path: Path | str) -> list[Run]:
    """Read every run under a folder: the results root, an experiment or one run; sorted by folder.

    Raises:
        ConfigError: there is no such folder.
    """
    found = sorted(find(path), key=lambda pair: natural(pair[0]))
    with uncollected():
        return [read(Path(folder), names) for folder, names in found if is_run(names)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the garbage collector: it would walk all that was read again and again, which takes longer than reading.

    Nothing that is read here refers to itself.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # together they make everything old, so that it is not walked as new either
        gc.enable()


def warnings(found: Iterable[Run]) -> list[str]:
    """Collect what was damaged, a sentence a file."""
    return [sentence for run in found for sentence in run.warnings]


def natural(text: str) -> list[tuple[float, str]]:
    """Sort key that has ``seed2`` before ``seed10``, ``0.25`` before ``0.5``, version ``2.9.0`` before ``2.15.0``."""
    parts = NUMBERS.split(text)
    key: list[tuple[float, str]] = [(-1.0, parts[0])]
    for number, word in zip(parts[1::2], parts[2::2], strict=True):
        if number.count(".") > 1:
            key += [(float(one), "") for one in number.split(".")]
        else:
            key.append((float(number), ""))
        key.append((-1.0, word))
    return key


def is_run(names: Collection[str]) -> bool:
    """Recognize a run's folder by its files; records kept for publication may come without their status."""
    return "status.json" in names or "record.json" in names


def find(root: Path | str, known: Collection[str] = ()) -> Iterator[tuple[str, Collection[str]]]:
    """Walk to run folders and to folders with sweeps (``.sweeps``); gives each with the names in it.

    Links are followed, but never in a circle; a folder that cannot be read is said, and has none. Those ``known`` to be
    a run's are not looked into, and come without names.

    Raises:
        ConfigError: there is no folder ``root``.
    """
    root = Path(root)
    if not root.is_dir():
        siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        raise ConfigError(f"RESULTS={root} is not a folder{nearest(root.name, siblings)}")
    return _find(str(root), known, set())


def _find(folder: str, known: Collection[str], seen: set[tuple[int, int]]) -> Iterator[tuple[str, Collection[str]]]:
    if folder in known:
        yield folder, ()
        return
    try:
        here = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = list(listing)
    except FileNotFoundError:  # it has gone since
        return
    except OSError as error:
        say_once(f"{folder} cannot be read ({why(error)}): runs in it are left out")
        return
    if (here.st_dev, here.st_ino) in seen:
        return
    seen.add((here.st_dev, here.st_ino))
    names = {entry.name for entry in entries}
    if is_run(names):
        yield folder, names
        return
    if ".sweeps" in names:
        yield folder, names
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir():
            yield from _find(entry.path, known, seen)


def read(folder: Path, names: Collection[str], *, records: bool = True) -> Run:
    """Read a run's folder, which holds the files ``names``.

    Without ``records``, that of a run whose status says done is not opened: it was written before the status said so.
    """
    warned: list[str] = []

    def get(name: str, reader: Callable[[str], dict[str, Any]]) -> dict[str, Any] | None:
        file = f"{folder}/{name}"
        try:
            return reader(file) if name in names else None
        except sealed.Damaged as error:
            warned.append(f"{file} is damaged: {error}: skipped")
        except OSError as error:
            warned.append(f"{file} cannot be read ({why(error)}): skipped")
        return None

    status, record = get("status.json", sealed.read) or {}, None
    unopened = not records and "record.json" in names and status.get("state") == "done" and "top1" in status
    if not unopened:
        record = get("record.json", valid.read)
    if record is not None and record["id"] != folder.name and _named(folder.name, status):
        warned.append(f"{folder}/record.json is that of another run, {record['id']}: skipped")
        record = None
    state = str(record["state"] if record else status.get("state", "damaged"))
    if state == "done" and record is None and not unopened:
        # The record is written last: a done run has one unless the file was lost or damaged afterwards.
        state = "damaged"
    name = (record or status).get("id")
    beat = None
    if state == "running":
        with suppress(OSError):
            beat = os.stat(folder / "status.json").st_mtime
    return Run(folder, name if isinstance(name, str) else folder.name, state, record, status, tuple(warned), beat=beat)


def _named(name: str, status: dict[str, Any]) -> bool:
    """Return whether a folder still has the name that its run gave it.

    Where its status has another, too, it is being carried over (``dstrun migrate``).
    """
    return NAMED.search(name) is not None and status.get("id", name) == name


def setting(run: Run) -> dict[str, Any]:
    """Return what a run was asked for, done or not: ``label``, ``choices``, ``config``; empty where unknown."""
    if run.record is not None:
        return {key: run.record[key] for key in ("label", "choices", "config")}
    import yaml

    from dstrun.record.folder import label

    try:
        data = sealed.content(run.folder / "config.yaml")
        if not is_signed(data):
            say_once(f"{run.folder / 'config.yaml'} is damaged: its checksum does not match: skipped")
            return {"label": None, "choices": {}, "config": {}}
        config = parse_yaml(data.decode(errors="replace"))
        choices = config.pop("choices")
        upgrade(config, choices)
        choices |= {key: config[key] for key in ("scope", "backend", "precision")}
        return {"label": label(choices), "choices": choices, "config": config}
    except FileNotFoundError:
        return {"label": None, "choices": {}, "config": {}}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        what = (
            f"cannot be read ({why(error)})" if isinstance(error, OSError) else "is damaged: it is not a configuration"
        )
        say_once(f"{run.folder / 'config.yaml'} {what}: skipped")
        return {"label": None, "choices": {}, "config": {}}


def metrics(run: Run, columns: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Read ``metrics.csv``: a row an epoch, numbers as numbers, nothing as None; no rows where there is no file.

    Of the ``columns`` (None: all of them) one must be ``epoch``. A last line cut short by a kill is left out; of an
    epoch written twice, by a run that was continued, the later row counts.
    """
    found = metric_columns(run, columns)
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def metric_columns(run: Run, columns: Collection[str] | None = None) -> dict[str, list[Any]]:
    """Read ``metrics.csv`` as ``metrics`` does: the values of each column by epoch; empty where there are no rows."""
    text = rows_text(run, "metrics.csv")
    # Only whole lines: half a number is still a number.
    header, *lines = [line.split(",") for line in text[: text.rfind("\n") + 1].splitlines()] or [[]]
    lines = [line for line in lines if len(line) == len(header)]
    if not lines or "epoch" not in header:
        return {}
    words = dict(zip(header, zip(*lines, strict=True), strict=True))
    found = {key: _values(key, words[key]) for key in header if columns is None or key in columns}
    epochs = found["epoch"]
    if set(map(type, epochs)) == {int} and epochs == list(range(epochs[0], epochs[0] + len(epochs))):
        return found
    latest = {epoch: at for at, epoch in enumerate(epochs) if isinstance(epoch, int)}
    kept = [latest[epoch] for epoch in sorted(latest)]
    return {key: [values[at] for at in kept] for key, values in found.items()}


def rows_text(run: Run, name: str) -> str:
    """Read ``metrics.csv`` or ``topology.csv``; what has been lost or changed since the run wrote it is said once."""
    file = f"{run.folder}/{name}"
    try:
        data = sealed.content(file)
    except OSError as error:
        data = b""
        if not isinstance(error, FileNotFoundError):
            say_once(f"{file} cannot be read ({why(error)}): skipped")
    except sealed.Damaged as error:
        say_once(f"{file} is damaged: {error}: skipped")
        return ""
    counted = (run.record or run.status).get("rows")
    sums = counted.get(name) if isinstance(counted, dict) else None
    if run.record is None and isinstance(sums, dict) and type(sums.get("bytes")) is int:
        data = data[: sums["bytes"]]  # what has been written since counts with the next status, which vouches for it
    there = max(0, data.count(b"\n") - 1)
    reached = number(run.status.get("epoch")) if run.record is None and name == "metrics.csv" else None
    if reached is not None and there < reached:
        say_once(f"{file} lacks epochs: it has {there} of {reached:g}")
    elif isinstance(sums, dict):
        if there != sums.get("rows"):
            what = f"is damaged: it has {there} rows of {sums.get('rows')}" if os.path.exists(file) else "is missing"
            say_once(f"{file} {what}")
        elif sums.get("crc32") != f"{crc32(data):08x}":
            say_once(f"{file} is damaged: its checksum does not match: something in it has changed")
    return data.decode("utf-8", "replace")


def _values(key: str, words: Sequence[str]) -> list[Any]:
    """Read a whole column as what it should hold; where it does not, try each word, which is far slower.

    One of a single word, as learning rate and memory often are, is read once.
    """
    if len(words) > 1 and words[0] == words[-1] and words.count(words[0]) == len(words):
        return _values(key, words[:1]) * len(words)
    try:
        return list(map(METRICS[key], words))
    except (KeyError, ValueError):
        return [_value(word) for word in words]


def _value(word: str) -> Any:
    if word.isdecimal():
        return int(word)
    try:
        return float(word)
    except ValueError:
        return word or None
