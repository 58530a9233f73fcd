"""How much memory is free: on the machine, and below the limits of control groups, as of containers and SLURM jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts control groups; version 1 has a folder per resource, version 2 none."""


def free_bytes(device: str = "cpu") -> int:
    """Read how much memory is free for this process and others, or all of it where the system does not say."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    free = 1024 * _numbers(Path("/proc/meminfo")).get("MemAvailable:", 0) or _installed()
    return min([free, *(limit - used for limit, used in _limits())])


def total_bytes() -> int:
    """Read how much memory this process may have: that of the machine, or less where a control group limits it."""
    return min([_installed(), *(limit for limit, _ in _limits())])


def _installed() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits() -> Iterator[tuple[int, int]]:
    """Yield the limit, and the bytes in use, of every control group that this process is in.

    File caches that the kernel drops first are not counted as used.
    """
    for folder, limit, used, cached in _groups():
        try:
            most, now = (int((folder / name).read_text()) for name in (limit, used))
        except (OSError, ValueError):  # no such group in this mount, or the limit is "max"
            continue
        yield most, now - min(now, _numbers(folder / "memory.stat").get(cached, 0))


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield folders of groups from the innermost to the root of their mount, and their files.

    A container may see its own group as the root, and a path that is the host's.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, resources, path = line.split(":", 2)
        if not resources:
            names = ("memory.max", "memory.current", "inactive_file")
            mount = GROUPS if (GROUPS / "cgroup.controllers").exists() else GROUPS / "unified"
        elif "memory" in resources.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount = GROUPS / "memory"
        else:
            continue
        inner = Path(path.lstrip("/"))
        for part in (inner, *inner.parents):
            yield mount / part, names[0], names[1], names[2]


def _numbers(file: Path) -> dict[str, int]:
    """Read lines of a name and a number, ``inactive_file 4096``; nothing where the file cannot be read."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
