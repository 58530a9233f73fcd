"""Compiles functions with numba, and keeps what is compiled on disk, where that is possible and undamaged."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from numba import njit
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.serialize import dumps


def compiled(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called; without the GIL.

    What is compiled is kept beside the source, or in numba's folder in the user's cache (``$NUMBA_CACHE_DIR`` names
    another); where neither can be written, every process compiles for itself.

    Args:
        parallel: whether ``prange`` in it runs on several threads.
    """

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, parallel=parallel)(function)
        if not _only_home_is_left(function):
            with suppress(RuntimeError, OSError):  # numba found no folder
                dispatcher._cache = _Kept(function)  # pyright: ignore[reportAttributeAccessIssue]
        return dispatcher

    return compile_lazily


def _only_home_is_left(function: Callable[..., Any]) -> bool:
    """Return whether a function could be kept in the home of a user without one alone: numba would make a ``~``."""
    beside = os.access(Path(function.__code__.co_filename).parent, os.W_OK)
    chosen = config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME")  # pyright: ignore[reportAttributeAccessIssue]
    return not beside and not chosen and os.path.expanduser("~") == "~"


class _Kept(FunctionCache):
    """numba's cache, except that what cannot be read is compiled again, and what cannot be written is not kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator, base = self._impl.locator, self._impl.filename_base
        self._cache_file = _Sealed(self.cache_path, base, locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for the types of ``sig``, or ``None``."""
        try:
            return super().load_overload(sig, target_context)
        except MemoryError:  # it may have left numba half prepared: nothing could be compiled instead
            raise
        except Exception:  # a damaged file can raise nearly anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled function for the types of ``sig``."""
        try:
            super().save_overload(sig, data)
        except OSError:  # as of a full disk
            return
        except Exception:  # a damaged index: the next process starts it anew
            with suppress(OSError):
                self.flush()


class _Sealed(IndexDataCacheFile):
    """Files with a checksum: a flipped bit in machine code would compute something else."""

    def save(self, key: Any, data: Any) -> None:
        """Write an entry."""
        content = dumps((key, data))
        super().save(key, (crc32(content), content))

    def load(self, key: Any) -> Any:
        """Return an entry; ``None`` where there is none, or it is damaged or of another key."""
        found = super().load(key)
        if found is None:
            return None
        checksum, content = found
        if crc32(content) != checksum:
            return None
        written_for, data = pickle.loads(content)
        return data if written_for == key else None
