"""The folder of one run: named by its content, locked by its owner, complete once ``record.json`` is there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dstrun.identity import VOLATILE, identity
from dstrun.option import ConfigError
from dstrun.record.lock import Lock, job_id
from dstrun.record.writer import Rows, previous, sweep_left_over, write_atomic

SCHEMA = 1

METRICS = (
    "epoch", "step", "train_loss", "loss", "top1", "top5", "lr", "seconds", "flops", "peak_bytes",
    "resident_peak_bytes", "split",
)  # fmt: skip
TOPOLOGY = ("step", "layer", "active", "pruned", "grown", "candidates", "explored")


def label(choices: dict[str, str | None]) -> str:
    """Name the method as a reader would: the preset, or the grow criterion of a composed one; the subset if special."""
    name = choices["grow"] if choices["method"] == "dst" else choices["method"]
    subset = choices.get("subset")
    return f"{name}-{subset}" if subset not in (None, "uniform") else str(name)


def run_id(config: dict[str, Any], choices: dict[str, str | None]) -> str:
    """Name a run: readable, and ended by a hash of everything that can change its result (``identity``).

    Raises:
        ConfigError: the file of a user's own option is gone.
    """
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    parts = [choices["model"], choices["dataset"], label(choices)]
    return "-".join(str(p) for p in parts) + f"-s{config['sparsity']:g}-seed{config['seed']}-{digest}"


def lasting(words: Sequence[str]) -> list[str]:
    """Give the words of a command line without those of settings that cannot change the result."""
    prefixes = tuple(f"{setting}{end}" for setting in VOLATILE if setting != "trusted" for end in "=.")
    return [word for word in words if not f"{word.lstrip('+~')}=".startswith(prefixes)]


def other_images(folder: Path, was: str = "") -> str:
    """Say that what is in a folder was trained on other images than are read now."""
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
        self._status: dict[str, Any] = {}
        self._status_written = threading.Lock()
        self._lock: Lock | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint goes."""
        return self.path / "checkpoint.pt"

    def record(self) -> dict[str, Any] | None:
        """Read the record of a finished run; ``None`` where there is none.

        Raises:
            ConfigError: it is damaged.
        """
        path = self.path / "record.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is damaged: remove it to finish this run again") from error

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
        if "checksum" in before and dataset.load().checksum == before["checksum"]:
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
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise ConfigError(f"results={self.config['results']} cannot be written: {error.strerror}") from error
        self._lock = lock
        try:
            yield
        finally:
            self._lock = None
            lock.release()

    def check(self) -> None:
        """Make sure, before something is written, that the run is still this process's.

        Raises:
            Busy: another process has taken it over.
        """
        if self._lock is not None:
            self._lock.check()

    def begin(self, config_text: str, resumed_step: int) -> None:
        """Write the configuration, and cut the rows back to what the checkpoint has seen (0: none)."""
        self.check()
        sweep_left_over(self.path)
        write_atomic(self.path / "config.yaml", config_text)
        for rows in (self.metrics, self.topology):
            rows.restart(lambda row: 0 < resumed_step >= int(row["step"]))

    def status(self, **changes: Any) -> None:
        """Replace ``status.json`` with the last status and these changes."""
        with self._status_written:
            self.check()
            self._status |= {
                "id": self.id,
                "host": platform.node(),
                "pid": os.getpid(),
                "job": job_id(),
                "heartbeat": time.time(),
            } | changes
            write_atomic(self.path / "status.json", json.dumps(self._status, indent=1))

    def _beat(self) -> None:
        """Refresh the status from the lock's thread, as a step may take minutes."""
        if self._status:
            self.status()

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record: the run is done, and the checkpoint before the last is not needed."""
        self.check()
        write_atomic(self.path / "record.json", json.dumps(record, indent=1))
        previous(self.checkpoint).unlink(missing_ok=True)
