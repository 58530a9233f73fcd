"""Everything a run needs to continue bit for bit, in one file that loads with ``weights_only=True``."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dstrun.option import ConfigError
from dstrun.record.writer import write_atomic

if TYPE_CHECKING:
    from dstrun.train.training import Training


def save(path: Path, training: Training) -> None:
    """Write the checkpoint atomically; of several processes the first does."""
    if not training.ranks.leads:
        return
    buffer = io.BytesIO()
    torch.save(training.state(), buffer)
    write_atomic(path, buffer.getvalue())


def backends(path: Path) -> list[str] | None:
    """Read which backend stored each layer, ``None`` where there is no checkpoint that says so."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None  # ``load`` will say so
    return state.get("backends")


def load(path: Path, training: Training) -> int:
    """Continue from a checkpoint, if there is one.

    Returns:
        The step it was written after; 0 where there is none.

    Raises:
        ConfigError: it is damaged, or belongs to other data than the data set now read.
    """
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location=training.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} is damaged: remove it to start this run again") from error
    if state["source"] != training.data.source:
        raise ConfigError(
            f"{path} was trained on other data than this dataset.root holds: remove the folder to restart"
        )
    training.load_state(state)
    return training.step
