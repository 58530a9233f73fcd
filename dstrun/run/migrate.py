"""Move runs of older versions to the folder and id that this version gives the same experiment.

Only the configuration counts, read as it was meant (``upgrade``); the words that made a run may mean another today.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrun.config import identity
from dstrun.record import sealed
from dstrun.record.folder import run_id
from dstrun.record.lock import Busy, Lock
from dstrun.record.writer import signed
from dstrun.report import load, status
from dstrun.report.format import Column
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import write_atomic

COLUMNS = [Column("run"), Column("state"), Column("migrate"), Column("becomes"), Column("note")]
CARRY, CARRIED, SAME, LEFT, FAILED = "would be carried", "carried", "as it is", "left", "failed"


class Left(Exception):
    """Why a run is left as it is."""


@dataclass
class Item:
    """A run, its row of the table, and what its configuration and choices are in this version's words."""

    run: load.Run
    row: dict[str, Any]
    config: dict[str, Any]
    choices: dict[str, Any]

    @property
    def target(self) -> Path:
        """Return the folder that the run shall have."""
        return self.run.folder.with_name(str(self.row["becomes"]))


def plan(runs: Sequence[load.Run], now: float) -> list[Item]:
    """Find out what is to be done of each run; reads only. ``now`` is a unix time."""
    items: list[Item] = []
    taken: dict[Path, Path] = {}
    for run in runs:
        row: dict[str, Any] = {
            "run": run.id,
            "state": run.state_at(now),
            "migrate": LEFT,
            "becomes": None,
            "note": None,
        }
        found = load.setting(run)
        item = Item(run, row, found["config"], found["choices"])
        items.append(item)
        try:
            name = _name(item)
            target = run.folder.with_name(name)
            if target != run.folder and target.exists():
                raise Left(f"{target} is there already")
            if (other := taken.setdefault(target, run.folder)) != run.folder:
                raise Left(f"{other} is the same run")
            row["becomes"] = name
            row["migrate"] = SAME if {run.id, run.status.get("id", name), run.folder.name} == {name} else CARRY
        except Left as why:
            row["note"] = str(why)
    return items


def _name(item: Item) -> str:
    """Return the id that this version gives a run.

    Raises:
        Left: there is none, or the run is not to be touched.
    """
    run, state = item.run, item.row["state"]
    if state in ("running", "damaged"):
        raise Left("trains now" if state == "running" else "its record or status cannot be read")
    if not item.config:
        raise Left("config.yaml is missing or cannot be read")
    if gone := [target for target in identity.targets(item.config) if not identity.exists(target)]:
        raise Left(f"this version has no {', '.join(gone)}")
    try:
        own = identity.code(item.config)
        if own != (run.get("code.own") or {}):
            raise Left(f"it uses your own {', '.join(own)}, whose code is not on record or has changed")
        name = run_id(item.config, item.choices)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise Left(f"its configuration has an unknown form ({error})") from error
    if run.folder.name not in (run.id, run.status.get("id"), name):
        raise Left(f"its folder was named by hand: its id is {run.id}")
    return name


def carry(items: Sequence[Item]) -> None:
    """Rename the folders of runs and write their ids anew; what another process holds is left."""
    names: dict[Path, str] = {}
    for item in items:
        if item.row["migrate"] != CARRY:
            continue
        try:
            before = item.run.folder
            _carry(item)
            names[before] = item.target.name
            item.row["migrate"] = CARRIED
        except Busy as busy:
            item.row |= {"migrate": LEFT, "note": str(busy)}
        except OSError as error:
            item.row |= {"migrate": FAILED, "note": f"{error.filename or item.run.folder}: {why(error)}"}
    for folder in {before.parent for before in names}:
        _rename_in_sweeps(folder, {before.name: name for before, name in names.items() if before.parent == folder})


def _carry(item: Item) -> None:
    """Rename, then rewrite record, configuration and status: wherever that ends, the next time goes on."""
    folder, target, name = item.run.folder, item.target, item.target.name
    lock = Lock(folder)
    lock.acquire()
    try:
        if target != folder:
            os.rename(folder, target)
            lock.folder, lock.note_path = target, target / lock.note_path.name
        if item.run.record is not None:
            sealed.write(target / "record.json", item.run.record | {"id": name})
        if (target / "config.yaml").exists():
            import yaml

            choices = {k: v for k, v in item.choices.items() if k not in item.config or k in identity.GROUPS}
            text = yaml.safe_dump({"choices": choices} | item.config, sort_keys=False, allow_unicode=True)
            write_atomic(target / "config.yaml", signed(text))
        if item.run.status:
            sealed.write(target / "status.json", item.run.status | {"id": name})
    finally:
        lock.release()


def _rename_in_sweeps(folder: Path, names: dict[str, str]) -> None:
    """Write new ids into what sweeps that are over have written, so that no run seems to be missing."""
    for file in sorted((folder / ".sweeps").glob("*.json")):
        with suppress(OSError, KeyError, TypeError):
            submission = sealed.read_if_whole(file) or {}
            if status.submission(submission, file.stat().st_mtime, time.time()).open is not False:
                continue
            runs = [entry | {"id": names.get(entry["id"], entry["id"])} for entry in submission["runs"]]
            if runs != submission["runs"]:
                sealed.write(file, submission | {"runs": runs})


def totals(items: Sequence[Item], dry: bool) -> str:
    """Count runs by what has become of them, or would."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.row["migrate"]] = counts.get(item.row["migrate"], 0) + 1
    counted = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{counted}; nothing was written" if dry else counted
