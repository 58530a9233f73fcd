"""The folder of one run: named by its content, locked by its owner, complete once ``record.json`` is there."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dstrun.config.identity import VOLATILE, identity
from dstrun.record import sealed, valid
from dstrun.record.lock import Busy, Lock, job_id
from dstrun.record.writer import Rows, set_aside, signed, sweep_left_over
from dstrun.system.bounded import refuse_link
from dstrun.system.process import host, machine, started
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import previous, write_atomic

HASH_DIGITS = 16
"""At the end of a run's name: 64 bits, which no two configurations that anybody trains share."""
OLD_DIGITS = 8
"""As many as older versions had; they are the first of today's."""

METRICS = (
    "epoch", "step", "train_loss", "loss", "top1", "top5", "lr", "seconds", "flops", "peak_bytes",
    "resident_peak_bytes", "split",
)  # fmt: skip
TOPOLOGY = ("step", "layer", "active", "pruned", "grown", "candidates", "explored")


log = logging.getLogger("dstrun")


def label(choices: dict[str, str | None]) -> str:
    """Name the method as a reader would: the preset, or the grow criterion of a composed one; the subset if special."""
    name = choices["grow"] if choices["method"] == "dst" else choices["method"]
    subset = choices.get("subset")
    return f"{name}-{subset}" if subset not in (None, "uniform") else str(name)


def plain(name: str) -> str:
    """Spell an option's name as folders and W&B take it: ``mine/net`` as ``mine.net``."""
    return re.sub(r"[^\w.+-]", ".", name)


def experiment(config: dict[str, Any], own: dict[str, str] | None = None) -> str:
    """Return a checksum of everything that can change a result (``identity``).

    Args:
        config: resolved.
        own: the checksum of each module of a user's own, where they are on record.

    Raises:
        ConfigError: the file of a user's own option is gone.
    """
    return hashlib.sha256(json.dumps(identity(config, own), sort_keys=True).encode()).hexdigest()


def run_id(config: dict[str, Any], choices: dict[str, str | None]) -> str:
    """Name a run: readable, and ended by a hash of everything that can change its result (``identity``).

    Raises:
        ConfigError: the file of a user's own option is gone.
    """
    digest = experiment(config)[:HASH_DIGITS]
    parts = [plain(str(part)) for part in (choices["model"], choices["dataset"], label(choices))]
    return "-".join(parts) + f"-s{config['sparsity']:g}-seed{config['seed']}-{digest}"


def lasting(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without those of settings that cannot change the result."""
    prefixes = tuple(f"{setting}{end}" for setting in VOLATILE if setting != "trusted" for end in "=.")
    return [word for word in words if not f"{word.lstrip('+~')}=".startswith(prefixes)]


def other_images(folder: Path, was: str = "") -> str:
    """Return the error that says that what is in a folder was trained on other images than are read now."""
    return f"{folder} was trained on other images{was} than dataset.root holds now: set experiment= to keep them apart"


class RunFolder:
    """``results/<experiment>/<run>/`` of one run.

    Args:
        config: the resolved configuration.
        choices: the option of each group by name.
    """

    def __init__(self, config: dict[str, Any], choices: dict[str, str | None]) -> None:
        self.id = run_id(config, choices)
        self.path = Path(config["results"]) / config["experiment"] / self.id
        self.config, self.choices = config, choices
        self.metrics = Rows(self.path / "metrics.csv", METRICS)
        self.topology = Rows(self.path / "topology.csv", TOPOLOGY)
        self.experiment = experiment(config)
        self.damage: str | None = None
        """What is wrong with a record that is there and counts as not there."""
        self.kept: dict[str, dict[str, Any]] | None = None
        """Rows as the checkpoint has them that the run continues from."""
        self.continued: list[dict[str, Any]] = []
        """With which other versions the run was trained before, and until which step."""
        self._status: dict[str, Any] = {}
        self._touched = False
        self._status_written = threading.Lock()
        self._lock: Lock | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint goes."""
        return self.path / "checkpoint.pt"

    def record(self) -> dict[str, Any] | None:
        """Read the record of this run; ``None`` where there is none, or what is there was not written by any run.

        Raises:
            ConfigError: it may not be read, is of another run, or still has the name that older versions gave it.
        """
        path = self.path / "record.json"
        try:
            record = valid.read(path)
        except FileNotFoundError:
            self._check_old_name()
            return None
        except sealed.Damaged as error:
            self.damage = f"{path} is damaged: {error}"
            return None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {why(error)}") from error
        try:
            other = experiment(record["config"], record.get("code", {}).get("own"))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            self.damage = f"{path} is damaged: its configuration has an unknown form ({error})"
            return None
        self.check_same(path, other)
        return record

    def check_same(self, path: Path, other: str) -> None:
        """Refuse what another experiment has left under this run's name.

        Args:
            path: of what was left.
            other: checksum of its experiment (``experiment``).

        Raises:
            ConfigError: it is another.
        """
        if other != self.experiment:
            raise ConfigError(
                f"{path} belongs to another configuration or code under this name: set experiment= or move it"
            )

    def _check_old_name(self) -> None:
        old = self.path.with_name(self.id[: OLD_DIGITS - HASH_DIGITS])
        if not self.path.exists() and os.path.exists(old):
            raise ConfigError(
                f"{old} has this run under its older name: dstrun migrate {shlex.quote(str(self.path.parent))} moves it"
            )

    def check_images(self, record: dict[str, Any], dataset: Any, found: str | None) -> None:
        """Refuse to take a finished run for one of other images; where none are here, they are taken for the same.

        Args:
            record: of the run.
            dataset: the option chosen.
            found: what it says is here (``Dataset.found``).

        Raises:
            ConfigError: the images are others.
        """
        before = record.get("data") or {}
        if None in (found, before.get("source")) or found == before["source"]:
            return
        if "checksum" in before and dataset.checksum() == before["checksum"]:
            return  # other files of the same images
        root = record["config"]["dataset"].get("root")
        was = f" ({self.choices['dataset']}{f' from {root}' if root else ''})"
        raise ConfigError(other_images(self.path, was))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Create the folder and hold it for this process, until it ends however it ends.

        Raises:
            Busy: another process holds it.
            ConfigError: it cannot be written.
        """
        lock = Lock(self.path, self._beat)
        try:
            for path in (self.path, *lock.files):
                refuse_link(path)
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            where = error.filename if error.errno == errno.ELOOP else f"results={self.config['results']}"
            raise ConfigError(f"{where} cannot be written: {why(error)}") from error
        self._lock = lock
        try:
            yield
        finally:
            self._lock = None
            lock.release()

    def tidy(self) -> None:
        """Remove what processes that were killed have left beside a record, unless another works here."""
        with suppress(OSError):
            stray = previous(self.checkpoint)
            hidden = [name for name in os.listdir(self.path) if name.startswith(".") and name != ".lock"]
            if not hidden and not stray.exists():
                return
            with suppress(Busy, ConfigError), self.owned():
                self._sweep()
                if self.checkpoint.exists():
                    stray.unlink(missing_ok=True)

    def mend_rows(self, record: dict[str, Any], kept: Callable[[], dict[str, dict[str, Any]]]) -> None:
        """Make rows of a finished run again that were lost or changed, or say that they cannot be.

        Args:
            record: of the run, with checksums.
            kept: reads the rows that its checkpoint keeps.
        """
        sums = record.get("rows") or {}
        damaged = [rows for rows in self._rows if rows.path.name in sums and not rows.matches(sums[rows.path.name])]
        if not damaged:
            return
        found = kept()
        with suppress(Busy, ConfigError), self.owned():
            for rows in damaged:
                mine, name = found.get(rows.path.name), rows.path.name
                if mine and mine["text"] is not None and f"{mine['crc32']:08x}" == sums[name]["crc32"]:
                    rows.restore(mine)
                else:
                    log.warning("%s has lost rows or was changed, and no checkpoint has them", rows.path)

    def check(self) -> None:
        """Make sure, before something is written, that the run is still this process's.

        Raises:
            Busy: another process has taken it over.
        """
        if self._lock is not None:
            self._lock.check()

    def begin(self, config_text: str, resumed_step: int) -> None:
        """Write the configuration, and make the rows what the checkpoint has seen (step 0: none).

        A damaged record is kept aside, as it may be all that is left of somebody's work.
        """
        self.check()
        self._touched = True
        self._sweep()
        if self.damage is not None:
            set_aside(self.path / "record.json", f"{self.damage}: it is written again")
            self.damage = None
        write_atomic(self.path / "config.yaml", signed(config_text))
        for rows in self._rows:
            if resumed_step and self.kept is not None:
                rows.restore(self.kept[rows.path.name])
            else:
                rows.restart(resumed_step)

    def _sweep(self) -> None:
        sweep_left_over(self.path, self._lock is not None and self._lock.locked)

    @property
    def _rows(self) -> tuple[Rows, Rows]:
        return self.metrics, self.topology

    def kept_rows(self) -> dict[str, dict[str, Any]]:
        """Return all rows so far, for a checkpoint."""
        return {rows.path.name: rows.keep() for rows in self._rows}

    def row_sums(self) -> dict[str, dict[str, Any]]:
        """Return how many rows each file has and their checksum, for record and status."""
        return {rows.path.name: rows.sums() for rows in self._rows}

    def status(self, **changes: Any) -> None:
        """Replace ``status.json`` with the last status and these changes."""
        with self._status_written:
            self.check()
            if not self._touched and not self._status:  # nor are the rows: what vouched for them still does
                before = sealed.read_if_whole(self.path / "status.json") or {}
                self._status = {key: before[key] for key in ("rows",) if key in before}
            self._status |= {
                "id": self.id,
                "host": host(),
                "pid": os.getpid(),
                "machine": machine(),
                "process_started": started(os.getpid()),
                "job": job_id(),
                "heartbeat": time.time(),
            } | changes
            if all(rows.begun for rows in self._rows):  # readers believe rows as far as the status vouches for them
                self._status["rows"] = self.row_sums()
            sealed.write(self.path / "status.json", self._status, squeeze=True)

    def _beat(self) -> None:
        """Refresh the status from the lock's thread, as a step may take minutes."""
        if self._status:
            self.status()

    def finish(self, record: dict[str, Any], timeline: str | None = None) -> None:
        """Write the record: the run is done, and the checkpoint before the last is not needed.

        Args:
            record: of the run.
            timeline: of its memory, as ``memory.csv``.
        """
        self.check()
        if timeline is not None:
            write_atomic(self.path / "memory.csv", timeline)
        sealed.write(self.path / "record.json", record)
        previous(self.checkpoint).unlink(missing_ok=True)
