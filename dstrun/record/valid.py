"""The schema of a record, by which every reader decides whether a run is done (``docs/record.md``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dstrun.config.upgrade import upgrade
from dstrun.record import sealed

SILENT_SECONDS = 300
"""A run that has given no sign of life for so long is lost: tables say so, and another machine may take it over."""

SCHEMAS = (1, sealed.SCHEMA)
"""Schemas that are read; those before the last are put into today's words (``upgrade``)."""

WORD_LENGTH = 1000
MOST = 2**100
"""FLOPs of a long training pass 2^63."""

Check = Callable[[Any], bool]


def _real(low: float = 0.0, high: float = float(MOST)) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= WORD_LENGTH


def _words(value: Any) -> bool:
    return type(value) is dict and all(type(word) is str or word is None for word in value.values())


def _object(value: Any) -> bool:
    return type(value) is dict


def _list(value: Any) -> bool:
    return type(value) is list


def _objects(value: Any) -> bool:
    return type(value) is list and all(type(item) is dict for item in value)


def _done(value: Any) -> bool:
    return value == "done"


_share, _percent, _seconds = _real(0, 1), _real(0, 100), _real()

REQUIRED: dict[str, Check] = {
    "id": _text, "state": _done, "label": _text, "seed": _count, "choices": _words, "config": _object,
    "accuracy": _object, "accuracy.top1": _percent,
}  # fmt: skip
OPTIONAL: dict[str, Check] = {
    "experiment": _text, "updates": _count, "layers": _objects, "backends": _words, "command": _list,
    "accuracy.top5": _or_none(_percent), "accuracy.loss": _or_none(_real(-float(MOST))),
    "accuracy.split": _or_none(_text),
    "config.sparsity": _share, "config.seed": _count, "config.epochs": _count, "config.batch_size": _count,
    "parameters": _object, "parameters.dense": _count, "parameters.active": _count, "parameters.prunable": _count,
    "parameters.sparsity": _share, "parameters.explored": _or_none(_real()),
    "flops": _object, "flops.inference": _count, "flops.train": _real(), "flops.executed_train": _real(),
    "flops.inference_x_dense": _or_none(_real()), "flops.train_x_dense": _or_none(_real()),
    "flops.executed_x_dense": _or_none(_real()),
    "memory": _object, "memory.peak_bytes": _or_none(_count), "memory.model_bytes": _or_none(_count),
    "memory.optimizer_bytes": _or_none(_count), "memory.activation_bytes": _or_none(_count),
    "memory.update_peak_bytes": _or_none(_count), "memory.step_peak_bytes": _or_none(_count),
    "seconds": _object, "seconds.train": _or_none(_seconds), "seconds.total": _or_none(_seconds),
    "seconds.step_median": _or_none(_seconds), "seconds.update_median": _or_none(_seconds),
    "seconds.epoch_median": _or_none(_seconds),
    "data": _object, "data.source": _or_none(_text), "data.checksum": _or_none(_text),
    "code": _object, "code.own": _words, "env": _object, "network": _object, "rows": _object,
}  # fmt: skip
"""Fields that older records, or those of some runs, lack."""

_PLAN: dict[str, list[tuple[str, str, Check, bool]]] = {}
"""By the object that has them, the record itself (``""``) first: name, key and check of each field, and if required."""
for _key, _check in (REQUIRED | OPTIONAL).items():
    _above, _, _name = _key.rpartition(".")
    _PLAN.setdefault(_above, []).append((_name, _key, _check, _key in REQUIRED))


def fault(record: dict[str, Any]) -> str | None:
    """Return what a record holds that it cannot, if anything; parts of the objects that are not named are free."""
    schema = record.get("schema")
    if schema not in SCHEMAS or type(schema) is not int:
        return f"it has schema {_shown(schema)}, and this version reads {SCHEMAS[-1]} and older"
    for above, fields in _PLAN.items():
        node = record.get(above, {}) if above else record  # which is an object: it has been checked
        for name, key, check, required in fields:
            if name in node:
                if not check(node[name]):
                    return f"{key} is {_shown(node[name])}"
            elif required:
                return f"it lacks {key}"
    if any(
        type(value) is dict and not isinstance(value.get("_target_", ""), str) for value in record["config"].values()
    ):
        return "an option in config has no class"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def read(path: Path | str) -> dict[str, Any]:
    """Read the record of a finished run, in this version's words.

    Raises:
        OSError: it cannot be read.
        Damaged: it is not what a run has written.
    """
    record = sealed.read(path)
    if (why := fault(record)) is not None:
        raise sealed.Damaged(why)
    try:
        upgrade(record["config"], record["choices"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise sealed.Damaged(f"its configuration has an unknown form ({error})") from error
    return record
