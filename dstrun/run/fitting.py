"""What fits into a given memory: the largest batch, the widest network, and the techniques that save memory.

Every answer is a prediction (``predict``), and has to lie below ``SAFE`` of the limit: predictions are a few per cent
off. What a process needs besides tensors of the run (libraries, the data set) is not in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from dstrun.config.experiment import Experiment
from dstrun.run.blueprint import Blueprint
from dstrun.run.predict import predict_memory
from dstrun.system.trouble import ConfigError

SAFE = 0.95
"""Share of the limit that a prediction may take: it is within 5 % of what is measured (``docs/accounting.md``)."""

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
         "TiB": 2**40}  # fmt: skip

TRIES = 12
"""Predictions that a search may take."""

CLOSE = 0.02
"""A search ends where what fits and what does not are this close to each other."""

Again = Callable[[Sequence[str]], Experiment]
"""Composes the experiment once more, with words that win over its own."""


@dataclass(frozen=True)
class Technique:
    """A way to train the same network in less memory.

    Attributes:
        setting: its key.
        values: the values to try, the cheapest in time first; ``None``: what divides the batch.
        exact: whether the numbers stay what they are, up to the order of sums; of ``microbatch``, in networks without
            batch normalization.
    """

    setting: str
    values: tuple[str, ...] | None
    exact: bool


TECHNIQUES = (
    Technique("activations", ("lean",), True),
    Technique("checkpointing", ("block", "sqrt"), True),
    Technique("microbatch", None, True),
    Technique("activations", ("bf16", "int8", "int4"), False),
    Technique("state", ("bf16", "int8"), False),
    Technique("weights", ("bf16",), False),
    Technique("precision", ("bf16",), False),
)
"""In the order in which they are tried."""


def parse(text: str) -> int:
    """Read an amount of memory: ``8GiB``, ``500 MB``, ``1.5GB``; bytes.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    size = float(found[1]) * units.get(found[2].lower(), 0) if found else 0
    if size < 1:
        raise ConfigError(
            f"fit={text} is not an amount of memory: write a number and one of {', '.join(UNITS)}, as in 8GiB"
        )
    return int(size)


def fit(given: Experiment, again: Again, limit: int) -> list[dict[str, Any]]:
    """Find what fits: rows of ``what`` was looked for, the ``words`` that bring it about, and its ``peak_bytes``.

    A row without words is the configuration as it is; one without a peak says that nothing was found. ``fits`` says
    whether it lies below the limit.

    Args:
        given: the experiment.
        again: composes it once more.
        limit: bytes.
    """
    room = limit * SAFE
    peak = _peak(given)
    rows = [{"what": "as it is", "words": [], "peak_bytes": peak, "fits": peak <= room}]
    rows.append(_row("the largest batch", _largest(_batches(given), again, room)))
    if "width" in given.config["model"]:
        count = sum(active(given))
        what = f"the widest network of {count:,} connections" if given.build("method").prunes else "the widest network"
        rows.append(_row(what, _largest(_widths(given, count, again), again, room)))
    if peak > room:
        rows.append(made_room(given, again, room, peak))
    return rows


def active(experiment: Experiment) -> list[int]:
    """Return the active connections that every layer shall have."""
    return Blueprint(experiment).counts


@dataclass(frozen=True)
class Scale:
    """A number to make as large as memory allows: ``words`` of a value, from ``start``, up to ``most``."""

    words: Callable[[float], list[str]]
    start: float
    most: float
    whole: bool


def _peak(experiment: Experiment) -> int:
    return predict_memory(experiment)["peak_bytes"]


def _row(what: str, found: tuple[list[str], int] | None) -> dict[str, Any]:
    words, peak = found or ([], None)
    return {"what": what, "words": words, "peak_bytes": peak, "fits": found is not None}


def _batches(given: Experiment) -> Scale:
    most = given.build("dataset").train_images
    step = given.config["microbatch"] or 1
    return Scale(
        lambda size: [f"batch_size={max(step, int(size) // step * step)}"], given.config["batch_size"], most, whole=True
    )


def _widths(given: Experiment, count: int, again: Again) -> Scale:
    """Return networks of other widths with as many active connections, where there are some that are not."""

    def words(width: float) -> list[str]:
        word = f"model.width={width:.4g}"
        if not given.build("method").prunes:
            return [word]
        size = sum(layer.size for layer in Blueprint(again([word])).cost.layers)
        return [word, f"sparsity={1 - count / size:.8g}"] if size > count else [word, "sparsity=0"]

    return Scale(words, given.config["model"]["width"], math.inf, whole=False)


def _largest(scale: Scale, again: Again, room: float) -> tuple[list[str], int] | None:
    """Find the largest value whose peak fits: peaks rise with it, nearly in a straight line over long stretches."""
    known: dict[float, int] = {}
    words: dict[float, list[str]] = {}
    value = scale.start
    for _ in range(TRIES):
        words[value] = scale.words(value)
        try:
            known[value] = _peak(again(words[value]))
        except ConfigError:  # no such network
            known[value] = -1
        low = max((v for v, peak in known.items() if 0 <= peak <= room), default=None)
        high = min((v for v, peak in known.items() if peak > room or peak < 0), default=None)
        value = _next(known, low, high, room, scale)
        if value in known:
            break
    return None if low is None else (words[low], known[low])


def _next(known: dict[float, int], low: float | None, high: float | None, room: float, scale: Scale) -> float:
    """Return the value to try next; one that is known where the search is over."""
    if low is None:
        assert high is not None
        aim = high / 2 if known[high] < 0 else min(high / 2, high * room / known[high])
        aim = max(aim, 1) if scale.whole else aim
        return high if high <= (1 if scale.whole else 1e-3) else _rounded(aim, scale)
    if high is None:
        aim = _crossing(known, room) or 2 * low
        return min(scale.most, _rounded(min(max(aim * 1.01, 1.1 * low), 8 * low), scale))
    if high - low <= max(CLOSE * low, 1 if scale.whole else 0):
        return low
    aim = _crossing(known, room) or (low + high) / 2
    edge = (high - low) / 20
    return min(max(_rounded(min(max(aim, low + edge), high - edge), scale), low), high)


def _crossing(known: dict[float, int], room: float) -> float | None:
    """Return where a straight line through the two points nearest to the limit meets it."""
    points = sorted((abs(peak - room), value, peak) for value, peak in known.items() if peak >= 0)[:2]
    if len(points) < 2 or points[0][2] == points[1][2]:
        return None
    (_, a, one), (_, b, other) = points
    return a + (room - one) * (b - a) / (other - one)


def _rounded(value: float, scale: Scale) -> float:
    return float(int(value)) if scale.whole else float(f"{value:.4g}")


def made_room(given: Experiment, again: Again, room: float, peak: int) -> dict[str, Any]:
    """Add techniques until it fits, and leave out those again that it fits without.

    Args:
        given: the experiment.
        again: composes it once more.
        room: bytes that its peak may take.
        peak: that it takes as it is.
    """
    taken: dict[str, str] = {}
    for key, value in _trials(given):
        if peak <= room:
            break
        tried = taken | {key: value}
        found = _tried(again, tried)
        if found is not None and found < 0.99 * peak:
            taken, peak = tried, found
    if peak <= room:
        for key in list(taken):
            fewer = {other: value for other, value in taken.items() if other != key}
            found = _tried(again, fewer)
            if found is not None and found <= room:
                taken, peak = fewer, found
    exact = all(_is_exact(given, key, value) for key, value in taken.items())
    what = f"techniques{'' if exact else ', which change the numbers'}"
    return {"what": what, "words": _words(taken), "peak_bytes": peak, "fits": peak <= room}


def _trials(given: Experiment) -> Iterator[tuple[str, str]]:
    for technique in TECHNIQUES:
        values = technique.values
        if values is None:
            size = given.config["batch_size"]
            values = tuple(str(n) for n in range(size - 1, 0, -1) if size % n == 0)
        yield from ((technique.setting, value) for value in values)


def _is_exact(given: Experiment, setting: str, value: str) -> bool:
    if setting == "microbatch":
        return not any(isinstance(module, _BatchNorm) for module in Blueprint(given).chosen.model.modules())
    return any(t.exact and t.setting == setting and (t.values is None or value in t.values) for t in TECHNIQUES)


def _words(taken: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in taken.items()]


def _tried(again: Again, taken: dict[str, str]) -> int | None:
    """Predict the peak with techniques; ``None`` where they do not go together."""
    try:
        return _peak(again(_words(taken)))
    except ConfigError:
        return None
