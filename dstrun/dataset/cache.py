"""Decoded images on disk: written once for each source, then memory-mapped."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TypeAlias

from dstrun.config.option import expanded
from dstrun.system.bounded import content
from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import whole

log = logging.getLogger("dstrun")

SUMS = "checksums.json"
"""CRC-32 of each array, beside the arrays. It finds damage; what others may write to is not read at all."""
LEFT_SECONDS = 6 * 3600.0
"""Age at which a half-written folder of another machine's process counts as left behind."""

Shapes: TypeAlias = "Mapping[str, tuple[tuple[int, ...], type[np.generic]]]"
"""The shape and the type of each array by its name."""


def checksum(files: Sequence[Path]) -> str:
    """Digest the names and contents of files, in the order given; where they lie does not matter.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        ConfigError: a file cannot be read.
    """
    whole = sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {why(error)}") from error
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()


def cached(
    name: str, source: str, shapes: Shapes, decode: Callable[[], Mapping[str, np.ndarray]], cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Open the decoded arrays of a source; decode and write them where they are missing or damaged.

    Any number of processes may do so at once: each decodes in a folder of its own and moves it into place whole. A
    cache that cannot be written, or that others may write to, is said and done without.

    Args:
        name: of the data set.
        source: checksum of what is decoded.
        shapes: what the arrays must look like.
        decode: gives the arrays.
        cache: the folder that holds the folders of all sources; ``$DSTRUN_CACHE``, or ``dstrun`` in the user's cache
            folder, if ``None``.

    Returns:
        The arrays; from the cache, they are memory-mapped copy-on-write: writing to them changes no file.

    Raises:
        ConfigError: whatever ``decode`` raises.
    """
    cache, own = cache if cache is not None else cache_folder(), None
    arrays: Mapping[str, np.ndarray] | None = None
    folder = cache / f"{name}-{source[:16]}"
    try:
        for path in (cache, folder):
            if fault := unsafe(path):
                log.warning("the cache folder %s is not used: %s", path, fault)
                return dict(decode())
        if (found := _open(folder, shapes)) is not None:
            return found
        own = cache / f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}"
        own.mkdir(mode=0o700, parents=True)
        _sweep(cache, own)
        arrays = decode()
        for key in shapes:
            _write(own / f"{key}.npy", arrays[key])
        (own / SUMS).write_text(json.dumps({key: _sum(arrays[key]) for key in shapes}))
        return _install(own, folder, shapes)
    except OSError as error:
        reason = why(error)
        log.warning(
            "the cache folder %s cannot be written (%s), and every run decodes its images again: set "
            "$DSTRUN_CACHE to a writable folder",
            cache, reason,
        )  # fmt: skip
        return dict(arrays if arrays is not None else decode())
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def remembered(
    name: str, source: str, make: Callable[[], Mapping[str, np.ndarray]], cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Read arrays of any shape that were made before of the same source, or make and keep them; a zip has CRC-32.

    Args:
        name: of what they are.
        source: checksum of what they are made of.
        make: gives the arrays.
        cache: as for ``cached``.

    Raises:
        ConfigError: whatever ``make`` raises.
    """
    cache = cache if cache is not None else cache_folder()
    path = cache / f"{name}-{source[:16]}.npz"
    believed = not unsafe(cache) and not unsafe(path)
    try:
        if believed and path.is_file():
            with np.load(path, allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
    except Exception:  # Damage can raise nearly anything, and all of it means: make it again.
        log.warning("%s is damaged: it is rebuilt", path)
    arrays = dict(make())
    if believed:
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole(path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            log.warning("the cache folder %s cannot be written (%s)", cache, why(error))
    return arrays


def unsafe(path: Path) -> str:
    """Return why the contents of a folder are not to be believed; nothing where they may be, or where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    if hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        return "another user owns it; set $DSTRUN_CACHE to a folder of your own"
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write to it; chmod o-w {path}"
    return ""


def _sum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes: about 1 GB a second."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _sweep(cache: Path, own: Path) -> None:
    """Remove folders that killed processes have left half-written."""
    for path in cache.glob(".*-*-*"):
        named = re.fullmatch(r"\.\w+-[0-9a-f]{16}-(\d+)-[0-9a-f]{8}", path.name)
        if path == own or not named or path.is_symlink():
            continue
        try:
            newest = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
        except OSError:
            continue
        if abs(time.time() - newest) > (LEFT_SECONDS if _alive(int(named[1])) else 60.0):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def cache_folder() -> Path:
    """Name the cache folder of this user."""
    if chosen := os.environ.get("DSTRUN_CACHE"):
        return Path(expanded(chosen))
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(expanded(chosen), "dstrun")
    try:
        return Path(expanded("~/.cache"), "dstrun")
    except ConfigError:  # no HOME, and no entry in the table of users: below a folder that nobody can make
        return Path(os.devnull, "dstrun")


def _open(folder: Path, shapes: Shapes) -> dict[str, np.ndarray] | None:
    """Memory-map the arrays, or say ``None`` where one is missing or is not what it must be."""
    if not folder.is_dir():
        return None
    found = {}
    try:
        sums = json.loads(content(folder / SUMS))
    except (OSError, ValueError, RecursionError):
        return None  # of an older version, or damaged
    for key, (shape, dtype) in shapes.items():
        path = folder / f"{key}.npy"
        try:
            if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would be waited for
                return None
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            size = path.stat().st_size
        except Exception:  # A damaged header can raise nearly anything, and all of it means: decode again.
            return None
        if not isinstance(array, np.memmap) or array.shape != shape or array.dtype != dtype:
            return None
        if not array.flags.c_contiguous or size != array.offset + array.nbytes:
            return None
        if not isinstance(sums, dict) or sums.get(key) != _sum(array):
            log.warning("%s is damaged: it is decoded again", path)
            return None
        found[key] = array
    return found


def _write(path: Path, array: np.ndarray) -> None:
    """Write an array through to the disk, so that a crash leaves no file that looks whole."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _install(own: Path, folder: Path, shapes: Shapes) -> dict[str, np.ndarray]:
    """Move a finished folder into place, unless another process did so first."""
    try:
        own.rename(folder)
    except OSError:
        # Another process finished first, and may have mapped its files already: leave those alone if they are good.
        found = _open(folder, shapes)
        if found is not None:
            return found
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink()
            folder.mkdir(mode=0o700)
        for file in (*(f"{key}.npy" for key in shapes), SUMS):
            if (folder / file).is_dir() and not (folder / file).is_symlink():
                shutil.rmtree(folder / file)
            os.replace(own / file, folder / file)
    found = _open(folder, shapes)
    if found is None:
        raise OSError(errno.EIO, f"the decoded images in {folder} cannot be read back: remove that folder")
    return found
