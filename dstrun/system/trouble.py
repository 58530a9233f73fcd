"""Errors that are not bugs: configuration, disk, memory, limits of the system."""

from __future__ import annotations

import errno
import os


class ConfigError(ValueError):
    """A configuration that cannot be run, said in one sentence; the command line exits with 2."""


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a write for which there is no room."""

ADVICE = {
    errno.ENOSPC: "free space or inodes there",
    errno.EDQUOT: "free space in your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files elsewhere on this machine",
    errno.ENOMEM: "free memory",
    errno.EROFS: "make it writable, or choose another place",
    errno.EACCES: "make it writable, or choose another place",
    errno.EPERM: "make it writable, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "move away what is there",
    errno.ENOTDIR: "move away what is there",
    errno.EEXIST: "move away what is there",
    errno.ELOOP: "move away what is there",
    errno.EIO: "check the disk",
    errno.ESTALE: "check that the network disk is available",
    errno.ENOTCONN: "check that the network disk is available",
    errno.ETIMEDOUT: "check that the network disk is available",
}
"""What to do about an error of the system."""


NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")
"""What Python and C++ say where a thread cannot be started."""

UNREPEATED = " does not have a deterministic implementation"
"""What PyTorch says after the name of an operation."""


def why(error: BaseException) -> str:
    """Return what the system says of an error, in words."""
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    return error.strerror or (os.strerror(error.errno) if error.errno else "") or str(error) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the machine or of a GPU, by whichever library noticed."""
    text = str(error)
    messages = ("DefaultCPUAllocator: ", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(words in text for words in messages))
    )


def sentence(error: BaseException) -> str | None:
    """Return what went wrong and what to do; ``None`` for what may be a bug, whose traceback is wanted."""
    if out_of_memory(error):
        first = next(iter(str(error).splitlines()), "")
        return f"out of memory{f' ({first[:160]})' if first else ''}: free some, or use a smaller model or batch_size"
    if isinstance(error, OSError | RuntimeError) and any(words in str(error) for words in NO_THREAD):
        return "no thread can be started: raise the limit of processes (ulimit -u), or free memory"
    if isinstance(error, RuntimeError) and UNREPEATED in str(error):
        name = str(error).partition(UNREPEATED)[0].strip()
        return f"{name} is not deterministic on a GPU: deterministic=false trains with it anyway"
    if isinstance(error, OSError) and error.errno in ADVICE:
        where = error.filename2 or error.filename
        place = os.fsdecode(where) if isinstance(where, bytes) else where
        return f"{'a file' if place is None else place} cannot be written or read: {why(error)}; {ADVICE[error.errno]}"
    return None
