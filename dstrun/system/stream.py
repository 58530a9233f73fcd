"""Random streams: every draw of a run has its own seed, made from the run's seed and what is drawn.

Nothing depends on how many numbers were drawn before, so a run continues anywhere without generator state, and an
extra draw in one place moves nothing elsewhere.
"""

from __future__ import annotations

import hashlib

from dstrun.system.lazy import torch


def stream(seed: int, *names: str | int) -> int:
    """Derive a seed in [0, 2^63) for one purpose, e.g. ``stream(0, "topology", step, layer)``.

    The same names give the same seed on every machine. PyTorch's CPU generator uses its low 32 bits.
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Make a CPU generator for one purpose; drawn on the CPU, numbers are the same on every device."""
    return torch.Generator().manual_seed(stream(seed, *names))
