"""Everything a run needs to continue bit for bit, in one file that loads with ``weights_only=True``.

The checkpoint before it is kept beside it while the run goes on: whenever the process or the machine ends, one of the
two is whole. Written by the training thread: at a checkpoint every few minutes, a thread of its own would save less
than a thousandth of the time (``docs/sweeps.md``).
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dstrun import __version__
from dstrun.record.folder import RunFolder, other_images
from dstrun.record.writer import set_aside
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import previous, write_atomic

if TYPE_CHECKING:
    from dstrun.train.training import Training

log = logging.getLogger("dstrun")

HERE = {"version": __version__, "torch": str(torch.__version__)}
"""With what this process trains."""


FOLDER = 0x10
"""The attribute by which an archive marks a folder."""


class Checkpoints:
    """Saves a run as it trains.

    Args:
        folder: of the run, held by this process.
        every_minutes: the time from one checkpoint to the next.
    """

    def __init__(self, folder: RunFolder, every_minutes: float) -> None:
        self.folder = folder
        self.seconds = 60 * every_minutes
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether the last checkpoint is so old that the next is due."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, training: Training) -> str | None:
        """Save; where the file cannot be written (a full disk), warn and go on with the one before.

        Returns:
            Why it could not be written; ``None`` where it was.
        """
        self.folder.check()
        reason = None
        try:
            save(self.folder.checkpoint, training, _folder_state(self.folder))
        except OSError as error:
            reason = why(error)
            log.warning("%s cannot be written (%s): the one before is kept", self.folder.checkpoint, reason)
        self._last = time.monotonic()
        return reason


def save(path: Path, training: Training, extra: dict[str, Any] | None = None) -> None:
    """Write the checkpoint; the one there was becomes the previous one only when the new one is safe on disk.

    Of several processes the first does; ``extra`` is what the run's folder adds.
    """
    if not training.ranks.leads:
        return
    buffer = io.BytesIO()
    try:
        torch.save(training.state() | HERE | (extra or {}), buffer)
    except RuntimeError as error:
        if "inline_container" in str(error):  # what torch says where the buffer could not grow
            raise MemoryError("a checkpoint") from error
        raise
    write_atomic(path, buffer.getvalue(), keep=True)


def _folder_state(folder: RunFolder) -> dict[str, Any]:
    return {"experiment": folder.experiment, "rows": folder.kept_rows(), "continued": folder.continued}


def newest(path: Path) -> tuple[Path | None, list[Path]]:
    """Find the newest checkpoint that is whole, and the damaged ones that were passed over."""
    damaged: list[Path] = []
    for candidate in (path, previous(path)):
        if candidate.exists():
            if is_whole(candidate):
                return candidate, damaged
            damaged.append(candidate)
    return None, damaged


def is_whole(path: Path) -> bool:
    """Check a checkpoint against the checksums in it, which ``torch.load`` does not: it takes any bytes for weights.

    What they do not cover, the headers of the archive, has to be as ``torch.load`` wants it; weights stay unread there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None or not all(map(_is_plain, archive.infolist())):
                return False
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return True
    except pickle.UnpicklingError:  # whole, and of something else
        return True
    except (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error):
        return False


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Return whether torch reads what Python has checked: of a folder, or of another size, it gives other bytes."""
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    return stored and not entry.external_attr & FOLDER


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows that a checkpoint keeps (``RunFolder.kept_rows``); none where there is no checkpoint."""
    found, _ = newest(path)
    return (_read(found, torch.device("cpu"), mmap=True).get("rows") or {}) if found else {}


def backends(path: Path) -> list[str] | None:
    """Read which backend stored each layer, ``None`` where there is no checkpoint that says so."""
    found, _ = newest(path)
    return _read(found, torch.device("cpu"), mmap=True).get("backends") if found else None


def load(path: Path, training: Training, folder: RunFolder | None = None) -> int:
    """Continue from the newest checkpoint that is whole, if there is one; damaged ones are said and kept aside.

    Args:
        path: of the checkpoint.
        training: put together, and continued.
        folder: of the run; it takes the rows that the checkpoint has seen.

    Returns:
        The step it was written after; 0 where the run starts again.

    Raises:
        ConfigError: it does not fit, or is of another run or of other data than the data set now read.
    """
    found, damaged = newest(path)
    state = _read(found, training.device) if found else {}
    if found and state.get("source") != training.data.source and state.get("images") != training.data.checksum:
        raise ConfigError(other_images(path.parent))
    if found and folder is not None and "experiment" in state:
        folder.check_same(found, state["experiment"])
    if found and folder is not None and not training.ranks.broadcast(lambda: _has_rows(folder, state)):
        log.warning(
            "%s has lost rows that are too many to be in the checkpoint: the run starts from scratch",
            folder.topology.path,
        )
        found = None
    if found:
        try:
            training.load_state(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _foreign(found, state) from error
        if folder is not None:
            _note(folder, state, training.step)
    if training.ranks.leads:
        for file in damaged:
            begins = f"continues from {found.name}, step {training.step}" if found else "starts from scratch"
            set_aside(file, f"{file} is damaged: the run {begins}")
    return training.step if found else 0


def final(path: Path) -> dict[str, Any]:
    """Read the checkpoint that a run has left at its end; on the CPU.

    Raises:
        ConfigError: there is none, or it is damaged or of another kind.
    """
    if not path.exists():
        raise ConfigError(f"{path} is missing: the weights of this run were not kept")
    if not is_whole(path):
        raise ConfigError(f"{path} is damaged: the weights of this run are lost")
    return _read(path, torch.device("cpu"))


def checksum(state: dict[str, Any]) -> str:
    """Return a digest of a network in training: parameters, buffers, and which connections are active.

    Args:
        state: ``Training.state`` or a part of it, with ``model`` and ``layers``.
    """
    positions = {name: kept["positions"] for name, kept in state["layers"].items() if "positions" in kept}
    return digest((*state["model"].items(), *positions.items()))


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of tensors and their names, in their order."""
    whole = hashlib.sha256()
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        whole.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
        whole.update(plain.flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _has_rows(folder: RunFolder, state: dict[str, Any]) -> bool:
    kept = state.get("rows")
    return kept is None or all(rows.holds(kept[rows.path.name]) for rows in (folder.metrics, folder.topology))


def _note(folder: RunFolder, state: dict[str, Any], step: int) -> None:
    """Read from a checkpoint what its run's folder needs, and note where another version or torch trained before."""
    folder.kept, folder.continued = state.get("rows"), list(state.get("continued", ()))
    before = {key: state.get(key, "(unknown)") for key in HERE}
    if before != HERE:
        folder.continued.append({"until_step": step} | before)
        log.warning(
            "the checkpoint is of dstrun %s with torch %s, and this is %s with %s: the run continues, "
            "not bit for bit, and its record says so", *before.values(), *HERE.values(),
        )  # fmt: skip


def _read(path: Path, device: torch.device, mmap: bool = False) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise _foreign(path, {}) from error


def _foreign(path: Path, state: dict[str, Any]) -> ConfigError:
    """Return the error that says that a checkpoint is whole and does not fit."""
    here = f"dstrun {__version__} with torch {torch.__version__}"
    there = f"dstrun {state.get('version', '(another version)')} with torch {state.get('torch', '(unknown)')}"
    return ConfigError(f"{path} was written by {there} and {here} cannot continue it: use that, or remove the folder")
