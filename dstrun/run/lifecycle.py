"""From a configuration to a record."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import sys
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import OmegaConf

from dstrun import __version__, loss
from dstrun.config.experiment import Experiment
from dstrun.config.identity import code
from dstrun.method.pruning import EmptyLayer
from dstrun.record.commit import commit
from dstrun.record.folder import RunFolder, label, lasting
from dstrun.record.lock import BUSY_CODE, Busy
from dstrun.report import load
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.introduce import introduce
from dstrun.run.sync import densities
from dstrun.system.heap import HUGE, keep_freed, largest_block
from dstrun.system.progress import Progress, human, muted, say
from dstrun.system.ranks import Ranks
from dstrun.system.safe import put, readable, without_secrets
from dstrun.system.trouble import ConfigError, sentence, why
from dstrun.system.whole import write_atomic
from dstrun.system.wording import counted, fixed, in_bytes, in_seconds
from dstrun.tracker.page import history, page, summary
from dstrun.tracker.protocol import Trackers
from dstrun.train import checkpoint, distributed
from dstrun.train.device import device_name, pick_device
from dstrun.train.fit import Diverged, Interrupted, Unsaved, fit
from dstrun.train.journal import Journal, Silence
from dstrun.train.precision import products
from dstrun.train.stop import Stop
from dstrun.train.training import Training
from dstrun.train.turns import together

log = logging.getLogger("dstrun")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``busy``, ``failed``, ``diverged`` or ``interrupted``; ``record`` where it is done.

    ``leads`` says whether this process is the one to tell it, where several have trained.
    """

    state: str
    folder: RunFolder
    record: dict[str, Any] | None = None
    message: str | None = None
    leads: bool = True


def run(experiment: Experiment) -> Outcome:
    """Train what the configuration says, or continue, or skip it where its record is there.

    A signal (``stop.ASKS``) may come at any time: what is trained is saved and the run let go before a launcher's own
    handler learns of it.

    Raises:
        ConfigError: it cannot be run here; nothing is written to its folder.
    """
    with Stop() as stop:
        here = distributed.place(experiment.config["distributed"])
        device = pick_device(experiment.config["device"], here.local if here.size > 1 else None)
        ranks, failed = distributed.join(here), True
        try:
            with nullcontext() if ranks.leads else muted():
                outcome = replace(_told(experiment, stop, device, ranks), leads=ranks.leads)
            failed = outcome.state not in ("done", "interrupted")
        finally:
            ranks.leave(failed)
    if outcome.state in ("interrupted", "busy"):  # one that ended needs no launcher to continue it
        stop.pass_on()
    return outcome


def _told(experiment: Experiment, stop: Stop, device: torch.device, ranks: Ranks) -> Outcome:
    """Run; an exception before or around training is recorded in the run's folder, if that can be written."""
    folder = RunFolder(experiment.config, experiment.choices)
    try:
        return _run(experiment, folder, stop, device, ranks)
    except ConfigError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        outcome, text = _failure(folder, error)
        if ranks.leads:
            with suppress(Exception), folder.owned():  # what kept it from training may keep it from telling
                _leave(outcome, text)
        if isinstance(error, KeyboardInterrupt):
            raise
        return outcome


def _run(experiment: Experiment, folder: RunFolder, stop: Stop, device: torch.device, ranks: Ranks) -> Outcome:
    config = experiment.config
    if (done := ranks.broadcast(folder.record)) is not None:
        dataset = experiment.build("dataset")
        folder.check_images(done, dataset, dataset.found())
        if ranks.leads:
            folder.tidy()
            folder.mend_rows(done, lambda: checkpoint.rows(folder.checkpoint))
        return Outcome("done", folder, done, "already done")
    trackers = Trackers(config if ranks.leads else {"tracker": []})
    blueprint = Blueprint(experiment)
    if largest_block([layer.shape for layer in blueprint.built.layers], config["batch_size"]) < HUGE:
        keep_freed()
    training = assemble(experiment, device, checkpoint.backends(folder.checkpoint), ranks, blueprint)
    if training.criterion is not None:
        loss.check(training.criterion, experiment.choices["loss"], blueprint.dataset.classes, device)
    try:
        with distributed.owned(folder, ranks):
            if (done := ranks.broadcast(folder.record)) is not None:  # another process has ended it meanwhile
                return Outcome("done", folder, done, "already done")
            if ranks.leads:
                return _train(blueprint, folder, training, stop, trackers)
            resumed = checkpoint.load(folder.checkpoint, training, folder)
            if asked := ranks.any_rank(stop.requested):
                return Outcome("interrupted", folder, None, f"{asked} at step {resumed} of {training.total_steps}")
            return _attempt(blueprint, folder, training, Silence(folder), stop)[0]
    except Busy as busy:
        return Outcome("busy", folder, None, str(busy))
    finally:
        training.data.close()


def _train(blueprint: Blueprint, folder: RunFolder, training: Training, stop: Stop, trackers: Trackers) -> Outcome:
    experiment = blueprint.experiment
    resumed = checkpoint.load(folder.checkpoint, training, folder)
    folder.begin(OmegaConf.to_yaml({"choices": experiment.choices, **experiment.config}), resumed)
    epoch = resumed // training.data.steps_per_epoch
    folder.status(state="running", epoch=epoch, epochs=training.total_steps // training.data.steps_per_epoch)
    if asked := training.ranks.any_rank(stop.requested):  # while the run was put together
        outcome = Outcome("interrupted", folder, None, f"{asked} at step {resumed} of {training.total_steps}")
        folder.status(state=outcome.state, message=outcome.message)
        return outcome
    introduce(blueprint, folder.id, training, resumed, str(trackers))
    trackers.open(folder.path, page(folder.id, experiment.config, experiment.choices))
    if resumed:
        show_again(trackers, folder, training)
    progress = Progress(training.total_steps, training.data.steps_per_epoch, experiment.config["batch_size"])
    try:
        outcome, error_text = _attempt(blueprint, folder, training, Journal(folder, trackers, progress), stop)
    finally:
        progress.close()
    _leave(outcome, error_text)
    trackers.finish(summary(outcome.state, outcome.record), 0 if outcome.state == "done" else 1)
    return outcome


def show_again(trackers: Trackers, folder: RunFolder, training: Training) -> None:
    """Show the epochs before a run is continued, of which each tracker takes those it lacks."""
    held = {"layers": training.topology(), "backends": {layer.name: layer.backend for layer in training.layers}}
    seen = load.Run(folder.path, folder.id, "running", held, {})
    rows = load.metrics(seen)
    for row, shares in zip(rows, densities(seen, [row["step"] for row in rows]), strict=True):
        trackers.log(history(row, shares), row["step"])


def _attempt(
    blueprint: Blueprint, folder: RunFolder, training: Training, journal: Journal, stop: Stop
) -> tuple[Outcome, str | None]:
    """Train to the end, or as far as it goes; give the text of an error besides."""
    checkpoints = checkpoint.Checkpoints(folder, blueprint.experiment.config["checkpoint"]["every_minutes"])
    try:
        fit(training, journal, stop, checkpoints)
        if not training.ranks.leads:
            return Outcome("done", folder), None
        record = make_record(blueprint, folder, training)
        folder.finish(record, training.memory.timeline())
        return Outcome("done", folder, record, _early(record)), None
    except (Interrupted, Diverged, Busy) as event:
        return Outcome(type(event).__name__.lower(), folder, None, str(event)), None
    except (EmptyLayer, ConfigError, Unsaved) as event:
        return Outcome("failed", folder, None, str(event)), f"{event}\n"
    except (Exception, SystemExit) as error:
        return _failure(folder, error)


def _early(record: dict[str, Any]) -> str | None:
    """Return that a run ended before its last epoch, if it did."""
    early, epochs = record["early_stop"], record["config"]["epochs"]
    if early is None or early["epoch"] == epochs:
        return None
    return f"ended early, after epoch {early['epoch']} of {epochs}: the best was {early['best_epoch']}"


def _failure(folder: RunFolder, error: BaseException) -> tuple[Outcome, str]:
    """Return why a run failed: a sentence if the user or the system can fix it, else the traceback."""
    if isinstance(error, KeyboardInterrupt):
        return Outcome("interrupted", folder, None, "stopped at once, without saving"), ""
    if isinstance(error, SystemExit):
        reason = f"the run ended the process ({error.code!r})"
        return Outcome("failed", folder, None, reason), traceback.format_exc()
    if (reason := sentence(error)) is not None:
        return Outcome("failed", folder, None, reason), f"{reason}\n"
    say(traceback.format_exc())
    return Outcome("failed", folder, None, f"{type(error).__name__}: {error}"), traceback.format_exc()


def _leave(outcome: Outcome, error_text: str | None) -> None:
    """Write how a run ended, as far as the disk lets it: it may be what the run failed of."""
    folder = outcome.folder
    try:
        if outcome.state != "busy":
            folder.status(state=outcome.state, message=without_secrets(outcome.message or "") or None, eta_seconds=None)
        if error_text:
            write_atomic(folder.path / "error.txt", without_secrets(error_text))
    except OSError as error:
        log.warning("%s cannot be written (%s)", folder.path, why(error))


def make_record(blueprint: Blueprint, folder: RunFolder, training: Training) -> dict[str, Any]:
    """Assemble the record of a finished run (``docs/record.md``)."""
    experiment, last, active = blueprint.experiment, training.last, training.active()
    config = experiment.config
    return {
        "id": folder.id,
        "experiment": config["experiment"],
        "state": "done",
        "label": label(experiment.choices),
        "command": lasting(experiment.command),
        "choices": experiment.choices | {k: config[k] for k in ("scope", "backend", "precision")},
        "config": config,
        "accuracy": {key: last[key] for key in ("top1", "top5", "loss", "split")},
        "parameters": blueprint.parameters(active) | {"explored": training.explored()},
        "flops": training.flops.record(active, min(training.nominal_steps, training.step) * config["batch_size"]),
        "memory": training.memory.record(),
        "seconds": training.clock.record(),
        "updates": training.updates,
        "early_stop": training.early.record(last["epoch"]),
        "layers": training.topology(),
        "not_prunable": blueprint.not_prunable,
        "seed": training.seed,
        "backends": {layer.name: layer.backend for layer in training.layers},
        "network": {"shapes": blueprint.shapes},
        "weights": {"checksum": checkpoint.checksum(training.state())},
        "data": {"source": training.data.source, "checksum": training.data.checksum},
        "code": {"version": __version__, **commit(), "own": code(config)},
        "rows": folder.row_sums(),
        "continued": folder.continued,
        "env": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": device_name(training.device),
            "products": products(training.device),
            "host": platform.node(),
            "threads": torch.get_num_threads(),
            "processes": training.ranks.size,
            "together": together(),
        },
    }


def report(outcome: Outcome) -> int:
    """Print how a run ended and what to do next; returns the exit code, which is 0 only where the run is done."""
    path = outcome.folder.path
    code = {"done": 0, "busy": BUSY_CODE, "interrupted": 130}.get(outcome.state, 1)
    if not outcome.leads:
        return code
    if outcome.record is not None:
        record, note = outcome.record, f"  ({outcome.message})" if outcome.message else ""
        memory, flops = record["memory"], record["flops"]
        peak = in_bytes(memory["peak_bytes"]) if memory["peak_bytes"] else "not measured"
        text = (
            f"top-1 {record['accuracy']['top1']:.2f} % on {record['accuracy']['split']}, final epoch{note}\n"
            f"FLOPs {human(flops['train'])} to train ({fixed(flops['train_x_dense'], 3)} x dense), "
            f"{human(flops['inference'])} per image ({fixed(flops['inference_x_dense'], 3)} x dense), "
            f"executed {fixed(flops['executed_x_dense'], 3)} x dense\n"
            f"peak memory {peak}, {in_seconds(record['seconds']['train'])} of training, "
            f"{counted(record['updates'], 'topology update')}\n"
            f"record {path / 'record.json'}"
        )
        put(readable(text, sys.stdout))
        if record["config"]["sparsity"] == 0 and (found := record["parameters"]["sparsity"]) > 0:
            log.warning("training determined the sparsity (%.4f): compare at equal sparsity", found)
        if record["choices"]["grow"] and record["updates"] == 0:
            log.warning("this dynamic run never updated its topology: it trained as static (updates: 0)")
        say(f"next: dstrun table {shlex.quote(str(path.parent))}")
    elif outcome.state == "busy":
        say(f"{outcome.message}; the same command continues it once it is free")
    else:
        say(f"{outcome.folder.id} {outcome.state}: {outcome.message}")
        words = path / ("error.txt" if outcome.state == "failed" else "metrics.csv")
        if outcome.state == "interrupted":
            say("the same command continues it")
        elif os.path.exists(words):
            say(f"see {words}")
    return code
