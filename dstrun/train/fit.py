"""The training loop."""

from __future__ import annotations

import time
from contextlib import nullcontext

import torch

from dstrun.account.memory import resident_peak_bytes
from dstrun.train.checkpoint import Checkpoints
from dstrun.train.journal import Journal
from dstrun.train.stop import Stop
from dstrun.train.training import Training
from dstrun.train.turns import pause, together

CHECK_STEPS = 20
"""A loss that is no number is noticed within so many steps; reading it every step would stall a GPU."""


class Diverged(Exception):
    """The loss became infinite or no number; the message says when."""


class Unsaved(Exception):
    """The last checkpoint cannot be written: the run is not done; the message says why."""


class Interrupted(Exception):
    """A signal asked to stop; the run is saved and continues when started again."""


def fit(training: Training, journal: Journal, stop: Stop, checkpoints: Checkpoints) -> None:
    """Train to the last step, or until asked to stop; what is done is in the journal and a checkpoint.

    Raises:
        Diverged: the loss is not finite.
        Interrupted: after the step during which a signal came.
        Unsaved: all steps are done, and their weights are not safe.
        Busy: another process has taken the run over.
    """
    training.model.train()
    training.compare()
    if training.step == 0:
        journal.step(0, training.prepare())
    while not training.over:
        started = time.perf_counter()
        take_timed_step(training, journal)
        at = f"at step {training.step} of {training.total_steps}"
        ends, ends_epoch = training.step == training.total_steps, training.step % training.data.steps_per_epoch == 0
        if looks := ends_epoch or training.step % CHECK_STEPS == 0:
            pause()  # as the loss is read next, which waits for the device
        asked = None if ends else training.ranks.any_rank(stop.requested)
        saves = ends or asked or training.ranks.any_rank("due" if checkpoints.due() else None)
        if (saves or looks) and not torch.isfinite(training.loss_sum):
            raise Diverged(f"the loss is not finite {at}")
        training.epoch_seconds += time.perf_counter() - started
        if ends_epoch:
            end_epoch(training, journal)
            ends = training.over
        failure = checkpoints.save(training) if saves or ends else None
        if asked and not ends:
            raise Interrupted(f"{asked} {at}" + (f", not saved: {failure}" if failure else ""))
        if ends and (failure := training.ranks.any_rank(failure)):
            raise Unsaved(
                f"the last checkpoint cannot be written ({failure}): free space, and the same command finishes it"
            )


def end_epoch(training: Training, journal: Journal) -> None:
    """Evaluate, and tell how the epoch went."""
    training.clock.epoch(training.epoch_seconds)
    per_epoch = training.data.steps_per_epoch
    training.last = {
        "epoch": training.step // per_epoch,
        "step": training.step,
        "train_loss": training.loss_sum.item() / per_epoch,
        **training.evaluate(),
        "lr": training.lr,
        "seconds": training.epoch_seconds,
        "flops": training.flops.train,
        "peak_bytes": training.memory.record()["peak_bytes"],
        "resident_peak_bytes": resident_peak_bytes() if together() == 1 else None,
        "split": training.data.split,
    }
    training.loss_sum.zero_()
    training.epoch_seconds = 0.0
    training.early.look(training.last["epoch"], training.last["top1"], sum(training.active()))
    journal.epoch(training.last, training.densities())


def take_timed_step(training: Training, journal: Journal) -> None:
    """Take a step; the first ordinary one with optimizer state, and the first update, are measured instead of timed."""
    step = training.step + 1
    kind = "update" if training.procedure.updates_at(step) else "step"
    measured = kind not in training.memory.peaks and (step > 1 or training.total_steps == 1)
    training.data.begin(training.step)
    with training.memory.phase(kind) if measured else nullcontext(), training.clock.time(None if measured else kind):
        updates = training.take_step()
    journal.step(training.step, updates)
