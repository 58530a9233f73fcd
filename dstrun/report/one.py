"""One run as ``dstrun show`` prints it, and two as ``dstrun diff`` does: words, settings, numbers, files."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dstrun.config.identity import identity, settings
from dstrun.config.option import GROUPS
from dstrun.report import load, status
from dstrun.report.format import Column
from dstrun.report.load import Run
from dstrun.system.progress import human
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import in_bytes, in_seconds

MISSING = "-"

FILES = {
    "record.json": "all numbers", "metrics.csv": "one row per epoch", "topology.csv": "one row per layer and update",
    "memory.csv": "memory over a step", "config.yaml": "all settings", "checkpoint.pt": "weights, to continue from",
    "status.json": "state and last heartbeat", "log.txt": "output", "error.txt": "the error it failed with",
}  # fmt: skip
"""What the files of a run hold."""


def percent(value: float) -> str:
    """Format an accuracy."""
    return f"{value:.2f} %"


def share(value: float) -> str:
    """Format a share of the dense network's."""
    return f"{value:.4f} x dense"


def whole(value: float) -> str:
    """Format a count."""
    return f"{value:,.0f}"


NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy.top1": ("top-1", percent),
    "accuracy.top5": ("top-5", percent),
    "accuracy.loss": ("loss", lambda value: f"{value:.4f}"),
    "accuracy.split": ("evaluated on", str),
    "parameters.active": ("active parameters", whole),
    "parameters.sparsity": ("sparsity reached", lambda value: f"{value:.4f}"),
    "flops.train": ("FLOPs to train", human),
    "flops.train_x_dense": ("training FLOPs", share),
    "flops.inference": ("FLOPs per image", human),
    "flops.inference_x_dense": ("inference FLOPs", share),
    "flops.executed_x_dense": ("executed FLOPs", share),
    "memory.peak_bytes": ("peak memory", in_bytes),
    "seconds.total": ("total time", in_seconds),
    "seconds.train": ("training time", in_seconds),
    "seconds.epoch_median": ("time per epoch", in_seconds),
    "seconds.step_median": ("time per step", in_seconds),
    "updates": ("topology updates", whole),
    "env.device": ("device", str),
    "env.torch": ("PyTorch", str),
    "code.version": ("dstrun", str),
}
"""The main numbers of a record: their names, and how they are printed."""


def numbers(run: Run) -> dict[str, Any]:
    """Return the main numbers of a record that it has, by key."""
    return {key: value for key in NUMBERS if (value := run.get(key)) is not None}


def config(run: Run) -> dict[str, Any]:
    """Return all that a run was configured with, whether it has finished or not; empty where nothing can be read."""
    return load.setting(run)["config"]


def choices(run: Run) -> dict[str, Any]:
    """Return the option of each group."""
    found = load.setting(run)["choices"]
    return {group: found.get(group) for group in GROUPS if found.get(group) is not None}


def differing(run: Run) -> dict[str, Any]:
    """Return the settings that decide the result and differ from their defaults, without the names of classes."""
    try:
        found = identity(config(run), (run.get("code.own") or {}))
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {key: value for key, value in found.items() if not key.endswith("_target_")}


def everything(run: Run) -> dict[str, Any]:
    """Return every setting that decides the result, with the names of options in place of their classes."""
    try:
        found = settings(config(run))
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return choices(run) | {key: value for key, value in found.items() if not key.endswith("_target_")}


def words(run: Run) -> list[str]:
    """Return the overrides of a run: those on record, else from its configuration."""
    if run.get("command") is not None:
        return list(map(str, run.get("command")))
    try:
        return _spelled(run)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return []


def _spelled(run: Run) -> list[str]:
    """Spell the configuration of a run that is not done in words; none where they would not make the same run."""
    from dstrun.config.composition import compose

    held, wanted = choices(run), identity(config(run))
    said = [f"{group}={held[group]}" for group in ("model", "dataset", "method") if group in held]
    made = compose(said)
    said += [f"{group}={held[group]}" for group in held if made.choices.get(group) != held[group]]
    made, every = compose(said), settings(config(run))
    now = settings(made.config)
    said += [
        f"{key}={shown(value) if not isinstance(value, list) else f'[{shown(value)}]'}"
        for key, value in every.items()
        if now.get(key, MISSING) != value and not key.endswith("_target_")
    ]
    return said if identity(compose(said).config) == wanted else []


def state(run: Run, now: float) -> str:
    """Return the state of a run in a sentence."""
    row = status.describe(run, run.id, now)
    parts = [row["state"]]
    if row["state"] != "done" and row["epochs"]:
        parts.append(f"epoch {row['epoch'] or 0} of {row['epochs']}")
        parts += [f"top-1 {row['top1']:.2f} %"] if row["top1"] is not None else []
    parts += [f"{in_seconds(row['eta_seconds'])} left"] if row["eta_seconds"] else []
    parts += [row["message"]] if row["message"] else []
    return ", ".join(parts)


def files(run: Run) -> list[dict[str, Any]]:
    """List the files of a run, those known first."""
    try:
        found = {entry.name: entry for entry in os.scandir(run.folder) if not entry.name.startswith(".")}
        known = [name for name in FILES if name in found] + sorted(set(found) - set(FILES))
        return [{"key": name, "value": _size(found[name]), "what": FILES.get(name, "")} for name in known]
    except OSError:
        return []


def _size(entry: os.DirEntry[str]) -> str:
    return "folder" if entry.is_dir(follow_symlinks=False) else in_bytes(entry.stat(follow_symlinks=False).st_size)


def shown(value: Any) -> str:
    """Print a setting as one types it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(shown, value)) if isinstance(value, list) else str(value)


def rows(run: Run, now: float | None = None) -> list[dict[str, Any]]:
    """Describe a run: rows of ``part``, ``key``, ``value`` as read, and ``text`` as printed."""
    said = words(run)
    found = [
        ("run", "id", run.id),
        ("run", "folder", str(place(run))),
        ("run", "state", state(run, now or time.time())),
    ]
    found += [("run", "words", shlex.join(["dstrun", *said]))] if said else []
    described = [
        {"part": part, "key": key, "value": value, "name": NAMES.get(key, key), "text": value}
        for part, key, value in found
    ]
    for part, held in (("parts", choices(run)), ("settings", differing(run))):
        described += [{"part": part, "key": k, "value": v, "name": k, "text": shown(v)} for k, v in held.items()]
    for key, value in numbers(run).items():
        name, printed = NUMBERS[key]
        described.append({"part": "numbers", "key": key, "value": value, "name": name, "text": printed(value)})
    for file in files(run):
        text = f"{file['value']:<9} {file['what']}".rstrip()
        described.append(
            {"part": "files", "key": file["key"], "value": file["value"], "name": file["key"], "text": text}
        )
    return described


NAMES = {"words": "command"}
"""What a key is called in print, where that is another word."""
COLUMNS = [Column("part"), Column("key"), Column("value")]
TITLES = {"parts": "parts", "settings": "settings other than the defaults", "numbers": "numbers", "files": "files"}


def text(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as text, one part below the other."""
    width = max(len(row["name"]) for row in rows)
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += ["", TITLES[part]] if part in TITLES else []
        indent = "  " if part in TITLES else ""
        lines += [
            f"{indent}{row['name']:<{width + 2 - len(indent)}}  {row['text']}" for row in rows if row["part"] == part
        ]
    return "\n".join(lines)


def compared(one: Run, other: Run) -> list[dict[str, Any]]:
    """Describe what differs between two runs: rows of ``part``, ``key``, ``a``, ``b`` as read, and as printed."""
    found = _words_apart(words(one), words(other))
    typed = {row["key"] for row in found}
    for part, read in (("settings", everything), ("numbers", numbers)):
        a, b = read(one), read(other)
        for key in [*a, *(key for key in b if key not in a)]:
            if a.get(key, MISSING) != b.get(key, MISSING) and not (part == "settings" and key in typed):
                name, printed = NUMBERS[key] if part == "numbers" else (key, shown)
                texts = [printed(held[key]) if key in held else MISSING for held in (a, b)]
                row = {"part": part, "key": key, "name": name, "a": a.get(key), "b": b.get(key)}
                found.append(row | {"a_text": texts[0], "b_text": texts[1], "change": _change(a.get(key), b.get(key))})
    return found


def _words_apart(a: Sequence[str], b: Sequence[str]) -> list[dict[str, Any]]:
    """Pair overrides of the same setting, in the order in which they were typed."""
    first, second = ({key: value for key, _, value in (word.partition("=") for word in said)} for said in (a, b))
    return [
        {"part": "words", "key": key, "name": key, "a": first.get(key), "b": second.get(key),
         "a_text": first.get(key, MISSING), "b_text": second.get(key, MISSING), "change": ""}
        for key in [*first, *(key for key in second if key not in first)]
        if first.get(key) != second.get(key)
    ]  # fmt: skip


def _change(a: Any, b: Any) -> str:
    """Return the second over the first."""
    if isinstance(a, bool) or not isinstance(a, int | float) or not isinstance(b, int | float) or not a:
        return ""
    return f"{b / a:.3g}x"


def place(run: Run) -> Path:
    """Return a run's folder, as seen from here where it lies below."""
    path, here = run.folder.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
