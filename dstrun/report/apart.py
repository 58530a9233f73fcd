"""Which runs of one configuration are still different experiments, by what their records measured.

Nothing is said where all agree; a run whose record does not say, as an older one, agrees with whatever there is alone.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

from dstrun.config import identity
from dstrun.report.load import Run

SHOWN = 8
"""Characters of a checksum."""

AMONG = {"parameters": ["asked"], "network": ["asked", "parameters"], "data": ["dataset"], "code": ["modules"]}
"""What may tell runs apart, and in what those agree among which it does."""


def mark(runs: Sequence[Run]) -> None:
    """Note in ``Run.apart`` what tells each run from others: ``parameters``, ``network``, ``data``, ``code``."""
    for run in runs:
        run.apart.clear()
    sums = {str(run.get("data.source")): run.get("data.checksum") for run in runs if run.get("data.checksum")}
    done = [(run, _found(run, sums)) for run in runs if run.record is not None]
    for name, among in AMONG.items():
        groups: dict[tuple[Hashable, ...], list[tuple[Run, dict[str, Any]]]] = {}
        for run, found in done:
            groups.setdefault(tuple(found[key] for key in among), []).append((run, found))
        for group in groups.values():
            several = len({found[name] for _, found in group} - {None}) > 1
            for run, found in group:
                if not several:
                    found[name] = None  # it parts nothing further
                else:
                    run.apart[name] = "unknown" if found[name] is None else found[name]


def _found(run: Run, sums: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared; images are known by their checksum, where any record says that of their source."""
    own = sorted((run.get("code.own") or {}).items())
    source = run.get("data.source")
    return {
        "asked": _network(run),
        "parameters": run.get("parameters.dense"),
        "network": _short(run.get("network.shapes")),
        "dataset": str(run.get("choices.dataset")),
        "data": _short(sums.get(str(source), source)),
        "modules": tuple(module for module, _ in own),
        "code": ",".join(f"{module}:{_short(digest)}" for module, digest in own) or None,
    }


def _network(run: Run) -> Hashable:
    """Return all that makes a network, so that another one is no surprise."""
    config = run.get("config", {})
    said = json.dumps({key: config.get(key) for key in ("model", "dataset")})
    return run.get("choices.model"), run.get("choices.dataset"), _of_model(said)


@lru_cache(maxsize=1024)  # of 10,000 runs, most have the same network
def _of_model(config: str) -> str:
    settings = identity.settings(json.loads(config))
    return repr(identity.by_value([(k, v) for k, v in settings.items() if k.startswith("model.")]))


def _short(checksum: Any) -> str | None:
    return None if checksum is None else str(checksum)[:SHOWN]
