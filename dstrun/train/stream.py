"""Independent random streams: one seed for every use, derived from the run's seed and the use's name."""

from __future__ import annotations

from hashlib import blake2b


def stream(seed: int, *names: str | int) -> int:
    """Derive the seed of a named stream.

    The same names give the same seed on every machine and in every version, so that what is drawn at a step depends
    on nothing drawn before it: ``stream(seed, "order", epoch)``. PyTorch's CPU generator uses the low 32 bits only.

    Returns:
        A whole number in [0, 2**63).
    """
    digest = blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
