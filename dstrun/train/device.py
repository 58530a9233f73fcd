"""The device that a run trains on."""

from __future__ import annotations

import os

import torch

from dstrun.system.trouble import ConfigError


def pick_device(wanted: str, local: int | None = None) -> torch.device:
    """Choose where to train; ``auto`` takes a GPU where there is one.

    Args:
        wanted: the setting.
        local: number of this process on its machine, where there are several: that of its GPU, unless it sees one only.

    Raises:
        ConfigError: the device asked for is not there.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and local is None, "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in here.items() if there)
    if not here[wanted]:
        there = ", ".join(name for name, is_there in here.items() if is_there)
        raise ConfigError(f"device={wanted} is not available: this machine has {there}")
    if wanted != "cuda" or local is None:
        return torch.device(wanted)
    count = torch.cuda.device_count()
    if count > 1 and local >= count:
        raise ConfigError(f"device=cuda has {count} GPUs on this machine, too few for process {local}, counted from 0")
    torch.cuda.set_device(local % count)
    return torch.device(wanted, local % count)


def make_deterministic(device: torch.device, threads: int | None, strict: bool = True) -> None:
    """Make the same seed give the same numbers on the same device.

    Args:
        device: where the run trains.
        threads: of the CPU; as many as there are if ``None``.
        strict: refuse operations that have no deterministic form on a GPU; else they are said, and PyTorch's attention,
            which chooses its form by this, does not repeat.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))  # the default one cannot be recorded (train/graph.py)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def seed_device(device: torch.device, seed: int) -> None:
    """Seed PyTorch's generators of the CPU and of one device, which dropout draws from.

    ``torch.manual_seed`` does so for every kind of device there is, and takes longer than the step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or `cpu` or `mps`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
