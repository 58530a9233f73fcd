"""A finished run's network as its training left it, from record and checkpoint; its images need not be here."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dstrun.report.load import Run
from dstrun.run.assemble import put_together
from dstrun.run.blueprint import Blueprint
from dstrun.run.finished import CHECKPOINT, Facts, past
from dstrun.system.progress import muted
from dstrun.system.trouble import ConfigError
from dstrun.train import checkpoint
from dstrun.train.training import Training


@dataclass(frozen=True)
class Restored:
    """A training at its end, and of what it is."""

    run: Run
    blueprint: Blueprint
    training: Training
    facts: Facts


@dataclass(frozen=True)
class Unopened:
    """The images of a run, in whose place nobody looks: what a method asks of them when it starts."""

    batch_size: int
    steps_per_epoch: int

    def balanced(self, step: int, per_class: int) -> Any:
        """Refuse to draw images."""
        raise RuntimeError("a finished run loads no images")


@contextmanager
def apart() -> Iterator[None]:
    """Build networks whatever the caller has set, say nothing, and leave his generators as they are."""
    with ExitStack() as stack:
        for context in (torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad(), muted()):
            stack.enter_context(context)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def restore(
    run: Run, device: torch.device | None = None, trusted: Collection[str] = (), places: Sequence[str] = ()
) -> Restored:
    """Rebuild what a run had trained when it ended.

    PyTorch's settings and generators stay as they are.

    Args:
        run: finished (``finished.find``).
        device: where its network goes; the CPU if ``None``.
        trusted: packages whose classes may be called.
        places: folders of the user's own modules.

    Raises:
        ConfigError: its weights were not kept, are damaged or of another run, or it cannot be built here.
    """
    record: dict[str, Any] = run.record or {}
    path = run.folder / CHECKPOINT
    state = checkpoint.final(path)
    facts = _facts(state)
    experiment = past(record, facts, trusted, places)
    try:
        if state["last"].get("loss") != record["accuracy"].get("loss") or _other(record, state):
            raise ConfigError(f"{path} has other weights than those of the record")
        with apart():
            blueprint = Blueprint(experiment)
            blueprint.check()
            epochs = blueprint.method.epochs(experiment.config["epochs"], experiment.config["sparsity"])
            epochs = run.get("early_stop.epoch", epochs)
            images = Unopened(experiment.config["batch_size"], state["step"] // epochs)
            training = put_together(blueprint, device or torch.device("cpu"), images, state["backends"])
        training.model.load_state_dict(state["model"])
        for layer in training.layers:
            layer.load_state(state["layers"][layer.name])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        there = f"dstrun {state.get('version', '(another version)')} with torch {state.get('torch', '(unknown)')}"
        raise ConfigError(f"{path} was written by {there}, and its network cannot be rebuilt here ({error})") from error
    training.model.eval()
    return Restored(run, blueprint, training, facts or _asked(blueprint))


def _facts(state: dict[str, Any]) -> Facts | None:
    """Read what a checkpoint says of the images; those of older versions say nothing."""
    try:
        return Facts.read(state["facts"])
    except (KeyError, ValueError):
        return None


def _asked(blueprint: Blueprint) -> Facts:
    """Ask the data set of a run of an older version."""
    option = blueprint.dataset
    if option.mean is None or option.std is None:
        raise ConfigError("an older version trained it, and did not note the mean and deviation of its images")
    names = getattr(option, "names", None)
    return Facts(tuple(option.image), option.classes, names and tuple(names), tuple(option.mean), tuple(option.std))


def _other(record: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether a checkpoint has other weights than a record says; those of older versions say nothing."""
    said = (record.get("weights") or {}).get("checksum")
    return said is not None and said != checkpoint.checksum(state)
