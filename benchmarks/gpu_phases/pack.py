"""What comes back: six files in one folder, each replaced as a whole, again and again while the slot goes on."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gpu_phases.kit import KIT
from gpu_phases.names import ARCHIVES
from gpu_phases.slot import Slot

EVERY_S = 30.0
LIMIT = 15 << 20
"""Bytes of a file with checkpoints; machines of others hand back files of 16 MiB."""
KEPT = ("record.json", "config.yaml", "metrics.csv", "topology.csv", "status.json", "error.txt")
"""Of a run."""


class Packer(threading.Thread):
    """Packs every half a minute, until it is told to end."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(daemon=True)
        self.slot, self.over = slot, threading.Event()

    def run(self) -> None:
        """Pack, wait, pack again."""
        while not self.over.wait(EVERY_S):
            try:
                pack(self.slot)
            except Exception as error:
                self.slot.say(f"not packed: {type(error).__name__}: {error}")

    def end(self) -> None:
        """Pack a last time."""
        self.over.set()
        self.join()
        pack(self.slot)


def pack(slot: Slot) -> None:
    """Write everything there is so far to ``slot.out``."""
    replace(slot.out / "checks.json", json.dumps(slot.told(), indent=1).encode())
    replace(slot.out / "bench.csv", slot.table().encode())
    runs = sorted(path for path in slot.results.glob("*/*") if path.is_dir())
    replace(slot.out / ARCHIVES[0], archive(slot.results, [run / name for run in runs for name in KEPT]))
    for name, files in zip(ARCHIVES[1:], shared_out(slot, runs), strict=True):
        if files:
            replace(slot.out / name, archive(slot.results, files))
        else:
            (slot.out / name).unlink(missing_ok=True)


def shared_out(slot: Slot, runs: Sequence[Path]) -> list[list[Path]]:
    """Choose the checkpoints of unfinished runs that go into each archive, the most advanced first."""
    bins, room = [list[Path](), list[Path]()], [LIMIT, LIMIT]
    going = [run for run in runs if (run / "checkpoint.pt").exists() and not (run / "record.json").exists()]
    for run in sorted(going, key=progress, reverse=True):
        with suppress(FileNotFoundError):
            size = len(zlib.compress((run / "checkpoint.pt").read_bytes(), 1))
            chosen = next((i for i, free in enumerate(room) if size <= free), None)
            if chosen is None:
                slot.say_once(f"no room for the checkpoint of {run.name}: its progress stays here")
                continue
            room[chosen] -= size
            bins[chosen].append(run / "checkpoint.pt")
    return bins


def progress(run: Path) -> float:
    """Return the share of its epochs that a run has done."""
    try:
        status = json.loads((run / "status.json").read_text())
        return status["epoch"] / status["epochs"]
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 0.0


def archive(root: Path, files: Sequence[Path]) -> bytes:
    """Return those of the files that are there as a tar file, compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as made:
        for file in files:
            with suppress(FileNotFoundError):
                data = file.read_bytes()  # at once: a run may replace the file meanwhile
                entry = tarfile.TarInfo(str(file.relative_to(root)))
                entry.size, entry.mtime = len(data), int(file.stat().st_mtime)
                made.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def replace(path: Path, data: bytes) -> None:
    """Replace a file as a whole."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_bytes(data)
    os.replace(beside, path)


def unpack(slot: Slot) -> None:
    """Put the runs that earlier slots left in ``.gpu/resume`` where this one trains."""
    slot.results.mkdir(parents=True, exist_ok=True)
    for path in existing():
        try:
            with tarfile.open(path) as made:
                made.extractall(slot.results, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            slot.say(f"{path} cannot be read: {error}")


def existing() -> Iterator[Path]:
    """Go over the archives of earlier slots."""
    return (path for name in ARCHIVES if (path := KIT / "resume" / name).is_file())
