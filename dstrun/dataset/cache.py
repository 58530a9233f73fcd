"""Decoded images on disk: written once for each source, then memory-mapped."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np

from dstrun.option import ConfigError

Shapes = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
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
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()


def cached(
    name: str, source: str, shapes: Shapes, decode: Callable[[], Mapping[str, np.ndarray]], cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Open the decoded arrays of a source; decode and write them where they are missing or damaged.

    Any number of processes may do so at once: each decodes in a folder of its own and moves it into place whole.

    Args:
        name: of the data set.
        source: checksum of what is decoded.
        shapes: what the arrays must look like.
        decode: gives the arrays.
        cache: the folder that holds the folders of all sources; ``$DSTRUN_CACHE``, or ``dstrun`` in the user's cache
            folder, if ``None``.

    Returns:
        The arrays, memory-mapped copy-on-write: writing to them changes no file.

    Raises:
        ConfigError: the cache folder cannot be written, or whatever ``decode`` raises.
    """
    cache = cache if cache is not None else cache_folder()
    folder = cache / f"{name}-{source[:16]}"
    found = _open(folder, shapes)
    if found is not None:
        return found
    own = cache / f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with _writing(cache):
            own.mkdir(parents=True)
        arrays = decode()
        with _writing(cache):
            for key in shapes:
                _write(own / f"{key}.npy", arrays[key])
            return _install(own, folder, shapes)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def cache_folder() -> Path:
    """Name the cache folder of this user."""
    if chosen := os.environ.get("DSTRUN_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dstrun"


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Turn a failure to write into a sentence that says which folder, and how to choose another."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the cache folder {cache} cannot be written ({error.strerror}): set $DSTRUN_CACHE to a folder that can"
        ) from error


def _open(folder: Path, shapes: Shapes) -> dict[str, np.ndarray] | None:
    """Memory-map the arrays, or say ``None`` where one is missing or is not what it must be."""
    found = {}
    for key, (shape, dtype) in shapes.items():
        path = folder / f"{key}.npy"
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            size = path.stat().st_size
        except Exception:  # A damaged header can raise nearly anything, and all of it means: decode again.
            return None
        if not isinstance(array, np.memmap) or array.shape != shape or array.dtype != dtype:
            return None
        if not array.flags.c_contiguous or size != array.offset + array.nbytes:
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
        for key in shapes:
            os.replace(own / f"{key}.npy", folder / f"{key}.npy")
    found = _open(folder, shapes)
    if found is None:
        raise ConfigError(f"the decoded images in {folder} cannot be read back: remove that folder")
    return found
