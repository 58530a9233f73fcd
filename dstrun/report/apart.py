"""Which runs of one configuration are not the same experiment all the same: by what their records found, not asked for.

Nothing is said where all agree; a run whose record does not say, as an older one, agrees with whatever there is alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

from dstrun.config import identity
from dstrun.report.load import Run

SHOWN = 8
"""Characters of a checksum."""


def mark(runs: Sequence[Run]) -> None:
    """Note in ``Run.apart`` what tells each run from others: ``parameters``, ``network``, ``data``, ``code``."""
    for run in runs:
        run.apart.clear()
    done = [run for run in runs if run.record is not None]
    data = _data(done)
    for _, network in _groups(done, _network).items():
        for _, alike in _split(network, "parameters", lambda run: run.get("parameters.dense")).items():
            _split(alike, "network", lambda run: _short(run.get("network.shapes")))
    for group in _groups(done, lambda run: str(run.get("choices.dataset"))).values():
        _split(group, "data", lambda run: _short(data.get(str(run.get("data.source")), run.get("data.checksum"))))
    for group in _groups(done, lambda run: tuple(sorted(run.get("code.own") or ()))).values():
        _split(group, "code", _code)


def _data(runs: Sequence[Run]) -> dict[str, Any]:
    """Name the images of every source: by their checksum, where any record says it; by the source else."""
    sources = {str(run.get("data.source")): run.get("data.checksum") for run in runs if run.get("data.checksum")}
    return {str(run.get("data.source")): run.get("data.source") for run in runs} | sources


def _network(run: Run) -> Hashable:
    """Return all that makes a network, so that another one is no surprise."""
    config = run.get("config", {})
    said = json.dumps({key: config.get(key) for key in ("model", "dataset")})
    return run.get("choices.model"), run.get("choices.dataset"), _of_model(said)


@lru_cache(maxsize=1024)  # of 10,000 runs, most have the same network
def _of_model(config: str) -> str:
    settings = identity.settings(json.loads(config))
    return repr(identity.by_value([(k, v) for k, v in settings.items() if k.startswith("model.")]))


def _code(run: Run) -> str | None:
    own = sorted((run.get("code.own") or {}).items())
    return ",".join(f"{module}:{_short(digest)}" for module, digest in own) or None


def _short(checksum: Any) -> str | None:
    return None if checksum is None else str(checksum)[:SHOWN]


def _groups(runs: Sequence[Run], key: Callable[[Run], Hashable]) -> dict[Hashable, list[Run]]:
    found: dict[Hashable, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _split(runs: Sequence[Run], name: str, value: Callable[[Run], Any]) -> dict[Hashable, list[Run]]:
    """Split runs by a value and note it where there are several; of one that has none, ``unknown``."""
    found = _groups(runs, value)
    if len(found.keys() - {None}) <= 1:
        return {None: list(runs)}
    for key, alike in found.items():
        for run in alike:
            run.apart[name] = "unknown" if key is None else key
    return found
