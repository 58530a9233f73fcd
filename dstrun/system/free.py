"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes(device: str = "cpu") -> int:
    """Read how much memory is free for new processes, or all of it where the system does not say."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    available = (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return next(available, 0) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
