"""Rebuilds runs on Weights & Biases from what they left on disk; what has been sent before is not sent again.

A run goes whole, under its own id, with the name, group, tags, configuration and numbers that it would have been
mirrored with while it trained. ``wandb/synced.json`` in its folder says what went where.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dstrun.record import sealed
from dstrun.report import load
from dstrun.report.format import Column
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError
from dstrun.tracker import page, wandb
from dstrun.tracker.protocol import reason

COLUMNS = [Column("run"), Column("state"), Column("epochs"), Column("sync"), Column("note")]
NEW, CHANGED, THERE, NO = "new", "changed", "already there", "no"
SENT, WRITTEN, FAILED = "sent", "written", "failed"
SAME = {"epoch", "train/loss", "test/loss", "test/top1", "val/loss", "val/top1", "train_loss", "loss", "top1"}
"""Numbers of an epoch by which it is recognised, those of older versions too."""


class Unsent(Exception):
    """W&B does not get a run, or not all of it; the message says why."""


@dataclass(frozen=True)
class Destination:
    """Where runs go: ``online`` to a server, ``offline`` into their own folders."""

    mode: str
    project: str | None = None
    entity: str | None = None

    def of(self, config: Mapping[str, Any]) -> Destination:
        """Return where a run goes: as its own configuration says unless a project is set here."""
        said = wandb.settings(config)
        return Destination(self.mode, self.project or wandb.project_of(config), said.get("entity"))

    def __str__(self) -> str:
        """Name it, as marks do."""
        project = self.project or wandb.project_of({})
        if self.mode == "offline":
            return f"offline/{project}"
        return "/".join(filter(None, (wandb.server(), self.entity or os.environ.get("WANDB_ENTITY"), project)))


@dataclass(frozen=True)
class Copy:
    """A run as W&B is to have it."""

    page: page.Page
    rows: list[tuple[int, dict[str, Any]]]
    summary: dict[str, Any]
    done: bool

    @property
    def digest(self) -> str:
        """Return a hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Mark:
    """``wandb/synced.json`` in a run's folder: what was sent last to each destination."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "wandb" / "synced.json"

    def sent(self, to: Destination) -> dict[str, Any]:
        """Return what was sent; empty where nothing was, or the offline files have gone since."""
        sent = self._read().get(str(to), {})
        return sent if to.mode == "online" or (self.path.parent / str(sent.get("files"))).is_dir() else {}

    def write(self, to: Destination, copy: Copy, files: str | None) -> None:
        """Note that a copy has been sent, and where its files are, if they are to stay."""
        sent = {"digest": copy.digest, "epochs": len(copy.rows), "files": files, "time": time.time()}
        self.path.parent.mkdir(exist_ok=True)
        sealed.write(self.path, {"sent": self._read() | {str(to): sent}})

    def _read(self) -> dict[str, Any]:
        sent = (sealed.read_if_whole(self.path) or {}).get("sent")
        return {to: one for to, one in sent.items() if isinstance(one, dict)} if isinstance(sent, dict) else {}


@dataclass
class Item:
    """A run and its row of the table."""

    run: load.Run
    row: dict[str, Any]


def plan(runs: Sequence[load.Run], to: Destination, now: float) -> list[Item]:
    """Find out what is to be done of each run; reads only. ``now`` is a unix time."""
    items, seen = [], {}
    for run in runs:
        row: dict[str, Any] = {"run": run.id, "state": run.state_at(now), "epochs": 0, "sync": NO, "note": None}
        items.append(Item(run, row))
        try:
            copy = make_copy(run, row["state"])
            row["epochs"] = len(copy.rows)
            if seen.setdefault(run.id, run.folder) != run.folder:
                raise Unsent(f"{seen[run.id]} has the same name")
            row["sync"], row["note"] = _compare(copy, Mark(run.folder).sent(to.of(copy.page.config)))
        except Unsent as why:
            row["note"] = str(why)
    return items


def _compare(copy: Copy, sent: dict[str, Any]) -> tuple[str, str | None]:
    if not sent:
        return NEW, None if copy.done else "unfinished"
    if sent.get("digest") == copy.digest:
        return THERE, None
    before = sent.get("epochs")
    return CHANGED, f"{before} epochs before" if before != len(copy.rows) else "other numbers or settings before"


def make_copy(run: load.Run, state: str) -> Copy:
    """Assemble what W&B shows of a run.

    Raises:
        Unsent: there is nothing to send, or it is too early.
    """
    setting, rows = load.setting(run), [row for row in load.metrics(run) if isinstance(row.get("step"), int)]
    if state == "running":
        raise Unsent("trains now")
    if state == "damaged":
        raise Unsent("its record or status cannot be read")
    if not setting["config"]:
        raise Unsent("config.yaml is missing")
    if not rows and state != "done":
        raise Unsent("no epoch yet")
    try:
        shares = densities(run, [row["step"] for row in rows])
        old = page.is_old(setting["config"])
        history = [(row["step"], page.history(row, share, old=old)) for row, share in zip(rows, shares, strict=True)]
        shown = page.page(run.id, setting["config"], setting["choices"], run.get("code.own"))
        return Copy(shown, history, page.summary(state, run.record, old=old), state == "done")
    except ConfigError as error:
        raise Unsent(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise Unsent(f"its record has an unknown form ({error!r})") from error


def densities(run: load.Run, steps: Sequence[int]) -> list[dict[str, float]]:
    """Return the active share of each layer with a topology after some steps; nothing where no size is recorded."""
    layers = [layer for layer in run.get("layers", []) if layer["name"] in run.get("backends", {})]
    sizes = {layer["name"]: layer["connections"] for layer in layers}
    active = {layer["name"]: layer["initial"] for layer in layers}
    shares, changes = [], iter(_changes(run) if layers else ())
    change = next(changes, None)
    for step in steps:
        while change is not None and change[0] <= step:
            active[change[1]] = change[2]
            change = next(changes, None)
        shares.append({name: active[name] / size for name, size in sizes.items()})
    return shares


def _changes(run: load.Run) -> list[tuple[int, str, int]]:
    """Read ``topology.csv``: steps, layers, connections after them; of a damaged file nothing."""
    try:
        lines = load.rows_text(run, "topology.csv").splitlines()
        rows = [line.split(",") for line in lines[1:]]
        return [(int(step), layer, int(active)) for step, layer, active, *_ in rows]
    except ValueError:
        return []


def reach() -> None:
    """Make sure that there is a server to send to.

    Raises:
        ConfigError: there is no key, or no way to it.
    """
    if (missing := wandb.lack()) is not None:
        raise ConfigError(f"sync finds {missing[0]}: {missing[1]}choose --offline")


def send(items: Sequence[Item], to: Destination) -> None:
    """Send what is new or has changed, and mark each run once all of it has been taken.

    Raises:
        ConfigError: the server cannot be reached any more.
    """
    due = [item for item in items if item.row["sync"] in (NEW, CHANGED)]
    for number, item in enumerate(due, 1):
        try:
            copy = make_copy(item.run, item.row["state"])
            there = to.of(copy.page.config)
            files, before = _send(copy, item.run.folder, there)
            Mark(item.run.folder).write(there, copy, files)
            item.row |= {"sync": SENT if to.mode == "online" else WRITTEN}
            if before:
                item.row["note"] = f"{before} epochs were there"
        except (Unsent, OSError) as error:
            item.row |= {"sync": FAILED, "note": str(error)}
        except KeyboardInterrupt:
            say(f"interrupted: {number - 1} of {len(due)} are sent; the same command sends the rest")
            raise
        note = f": {item.row['note']}" if item.row["note"] else ""
        say(f"[{number}/{len(due)}] {item.run.id} {item.row['sync']}{note}")
        if item.row["sync"] == FAILED and to.mode == "online":
            reach()


def _send(copy: Copy, folder: Path, to: Destination) -> tuple[str | None, int]:
    """Mirror a run, beside its folder's files; offline, put the files among them when they are whole.

    Returns:
        The name of the offline files; how many epochs W&B had already.

    Raises:
        Unsent: W&B does not take it, or has other numbers of it.
    """
    kept = folder / "wandb"
    beside = kept / ".sync"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        before = _mirror(copy, beside, to)
        if to.mode == "online":
            return None, before
        (made,) = beside.glob("wandb/offline-run-*")
        for old in kept.glob("offline-run-*"):  # else `wandb sync` would send the run in two versions
            aside = kept / "replaced" / old.name
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            old.rename(aside)
        (kept / "latest-run").unlink(missing_ok=True)  # wandb's link to what has just been moved
        made.rename(kept / made.name)
        return made.name, before
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _mirror(copy: Copy, folder: Path, to: Destination) -> int:
    try:
        mirror = wandb.Mirror.open(to.mode, folder, copy.page, project=to.project)
        return _continued(copy, mirror)
    except Unsent:
        raise
    except Exception as error:
        raise Unsent(reason(error)) from error


def _continued(copy: Copy, mirror: wandb.Mirror) -> int:
    """Mirror what is not there yet; returns how many epochs were."""
    code = 0 if copy.done else 1
    before = [row for row in copy.rows if row[0] < mirror.next]
    last = before[-1][1] if before else {}
    known = {key: value for key, value in last.items() if key in SAME}
    if mirror.next and not (known and mirror.agrees(known)):
        mirror.finish({}, exit_code=code)
        raise Unsent("W&B has other numbers under this name, and does not replace them: choose another --project")
    try:
        for step, values in copy.rows[len(before) :]:
            mirror.log(values, step)
    except KeyboardInterrupt:
        mirror.finish({}, exit_code=1)
        raise
    mirror.finish(copy.summary, code)
    return len(before)


def totals(items: Sequence[Item], to: Destination, dry: bool) -> str:
    """Count runs by what has become of them, or would, and say what comes next."""
    counts = Counter(item.row["sync"] for item in items)
    counted = ", ".join(f"{count} {what}" for what, count in counts.items())
    if dry:
        return f"{counted}; {counts[NEW] + counts[CHANGED]} of {len(items)} would go to {to}; nothing was sent"
    text = f"{counted}; to {to}"
    if to.mode == "offline":
        parents = sorted(
            {
                f"{shlex.quote(str(item.run.folder.parent))}/*/wandb/offline-run-*"
                for item in items
                if item.row["epochs"]
            }
        )
        text += f"\nnext: wandb sync {' '.join(parents)}" if parents else ""
    return text
