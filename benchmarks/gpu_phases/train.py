"""Whole recipes, in order of value, until the slot is over; what is not done is saved, and goes on in the next slot."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from gpu_phases import jobs
from gpu_phases.child import Found, row
from gpu_phases.kit import ROOT
from gpu_phases.slot import Slot

SAVE_S = {"cuda": 15.0, "cpu": 4.0}
"""Kept for runs to save when they are asked to end."""
GRACE_S = 5.0
"""For those that have not, or where everything is asked to end."""
LEAST_S = {"cuda": 25.0, "cpu": 4.0}
"""In which a run starts and comes some way: it is not begun with less."""

ENDS = {0: "done", 130: "saved", -signal.SIGTERM: "ended before it trained"}
"""What the exit code of a run means."""


@dataclass(frozen=True)
class Recipe:
    """A run: the words of its command line that decide its result, and where its record goes."""

    name: str
    words: tuple[str, ...]
    experiment: str


def recipes(device: str) -> list[Recipe]:
    """Return what is trained, in order of value."""
    if device == "cpu":
        words = ("model=mlp", "dataset=digits", "sparsity=0.8", "batch_size=32", "optimizer.lr=0.05")
        epochs = {"rigl": 4, "gse": 4000, "set": 4}
        return [Recipe(f"mlp {m}", (*words, f"method={m}", f"epochs={n}"), "mlp") for m, n in epochs.items()]
    small, large = (("rigl", "set", "gse", "static", "dense"), ("gse", "set", "rigl", "dense"))
    order = [("vgg16_small", m, 0) for m in small] + [("resnet56", m, 0) for m in large]
    order += [("vgg16_small", m, seed) for seed, m in product((1, 2), small)]
    order += [("resnet56", m, seed) for seed, m in product((1, 2), large)]
    found = []
    for model, method, seed in order:
        words = ("protocol=heddes2024", f"method={method}", f"model={model}", f"seed={seed}", "precision=tf32")
        words += () if method == "dense" else ("sparsity=0.98",)
        found.append(Recipe(f"{model} {method} {seed}", words, f"{model}-200"))
    return found


def train(slot: Slot, deadline: float) -> None:
    """Train what no record is there of yet, as many at once as pay, until it is time to save."""
    (slot.work / "data").symlink_to(slot.root.resolve())
    done, waiting = identities(slot), recipes(slot.device)
    stop = deadline - SAVE_S[slot.device]
    busy: dict[str, jobs.Job] = {}
    try:
        while time.monotonic() < stop and (waiting or busy):
            while waiting and len(busy) < slot.best and stop - time.monotonic() > LEAST_S[slot.device]:
                recipe = waiting.pop(0)
                if (where := done.get(identity(recipe.words))) is not None:
                    slot.say(f"{recipe.name}: done before, {where.name}")
                else:
                    busy[recipe.name] = started(slot, recipe)
            _tell(slot, busy)
            if waiting and not busy and stop - time.monotonic() <= LEAST_S[slot.device]:
                break
            time.sleep(jobs.POLL_S)
        for job in busy.values():
            job.ask()
        while busy and time.monotonic() < deadline:
            _tell(slot, busy)
            time.sleep(jobs.POLL_S)
    finally:
        give_up(slot, busy)
    if waiting:
        slot.say(f"not begun: {', '.join(recipe.name for recipe in waiting)}")
    _results(slot)


def give_up(slot: Slot, busy: dict[str, jobs.Job]) -> None:
    """End what still trains, where the time is over or this process is asked to end; it may save first."""
    for job in busy.values():
        job.ask()
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and not all(job.ended() for job in busy.values()):
        time.sleep(jobs.POLL_S)
    for name, job in busy.items():
        saved = job.ended()
        job.kill()
        slot.say(f"{name}: {'ended' if saved else 'killed'}, it goes on from its last checkpoint")


def started(slot: Slot, recipe: Recipe) -> jobs.Job:
    """Start a run by the ordinary command line."""
    images = () if slot.device == "cpu" else ("dataset=cifar10", "dataset.root=data", "device=cuda")
    words = [*recipe.words, *images, "threads=1", "wandb=disabled", "checkpoint.every_minutes=0.25"]
    words += [f"experiment={recipe.experiment}", "results=results"]
    name = f"train-{recipe.name.replace(' ', '-')}"
    job = jobs.Job(name, "gpu_phases.train:command", {"words": words}, folder=slot.work)  # short words, on record
    job.start(slot)
    slot.say(f"{recipe.name}: started: dstrun {' '.join(words)}")
    return job


def command(words: list[str]) -> Iterator[Found]:
    """Be the command line; this process ends with its exit code."""
    from dstrun.cli.main import main

    raise SystemExit(main(words))
    yield {}


def _tell(slot: Slot, busy: dict[str, jobs.Job]) -> None:
    """Report how runs have ended, and forget them."""
    for name, job in list(busy.items()):
        if not job.ended():
            continue
        del busy[name]
        assert job.process is not None
        job.listen()
        if (code := job.process.returncode) in ENDS:
            slot.say(f"{name}: {ENDS[code]} after {time.monotonic() - job.began:.0f} s")
        else:
            slot.check(f"train: {name}", "failed", job.why())


def _results(slot: Slot) -> None:
    """Note the accuracy and the seconds of every run, and how far the others have come."""
    for path in sorted(slot.results.glob("*/*")):
        try:
            if (path / "record.json").exists():
                record = json.loads((path / "record.json").read_text())
                choices, seed = record["choices"], record["seed"]
                name = f"{choices['model']}/{choices['method']}/seed{seed}"
                slot.hear(row(f"top1/{name}", record["accuracy"]["top1"], "%", path.name))
                seconds = record["seconds"]
                slot.hear(row(f"run/{name}", seconds["total"], "s", f"{1e3 * seconds['step_median']:.2f} ms a step"))
            elif (path / "status.json").exists():
                status = json.loads((path / "status.json").read_text())
                slot.say(f"{path.name}: {status.get('epoch')} of {status.get('epochs')} epochs")
        except (OSError, ValueError, KeyError, TypeError) as error:
            slot.say(f"{path}: {type(error).__name__}: {error}")


def identities(slot: Slot) -> dict[str, Path]:
    """Return where there is a record of each experiment, among those that are published and of earlier slots."""
    from dstrun.config import identity as of
    from dstrun.record import valid

    found = {}
    for folder in (ROOT / "results" / "published", slot.results):
        for path in sorted(folder.rglob("record.json")):
            try:
                found[_plain(of.identity(valid.read(path)["config"], {}))] = path.parent
            except Exception as error:
                slot.say(f"{path} cannot be read: {error}")
    return found


def identity(words: tuple[str, ...]) -> str:
    """Return what decides the result of a run, whatever device it trains on."""
    from dstrun.config import identity as of
    from dstrun.config.composition import compose

    return _plain(of.identity(compose(list(words)).config))


def _plain(found: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in found.items() if key != "device"}, sort_keys=True)
