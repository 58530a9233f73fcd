"""Holds dstrun, and dstrun with bugs planted into it, against the engine; prints what came out as JSON.

A process of its own: victims are forked, and PyTorch's threads in a process of many tests are not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import torch._dynamo  # noqa: F401  # for the first step of every victim

from dstrun.record import lock, writer
from dstrun.torture.certificate import certify
from dstrun.torture.fault import KINDS, Fault, Reference
from dstrun.torture.points import Strike
from dstrun.torture.trial import CONFIGURATIONS, Trial, Verdict, refer
from dstrun.torture.victim import Injury
from dstrun.train import checkpoint
from dstrun.train.training import Training

SEED = 1


def kill(reference: Reference, words: str, occurrence: int, when: str = "before") -> Fault:
    """Kill -9 at an operation on a file, the so-and-so-many-th time it comes."""
    found = [n for n, said in enumerate(reference.trace, 1) if all(word in said for word in words.split())]
    at = Strike(found[occurrence], lambda *_: os.kill(os.getpid(), signal.SIGKILL), when)
    return Fault(f"kill -9 {when} {words}", [Injury([at])])


def without(real: Callable[..., Any], key: str, training: Training) -> dict[str, Any]:
    """Leave a part of the state as it is at the start."""
    state = real(training)
    return state | {key: {**state[key], "state": {}} if key == "optimizer" else state[key]}


def lazy(real: Callable[..., Any], self: checkpoint.Checkpoints, training: Training) -> str | None:
    """Save all but the end."""
    return None if training.step == training.total_steps else real(self, training)


def deaf(*_: Any) -> None:
    """End as if all were well."""
    print("interrupted")
    os._exit(0)


def planted(reference: Reference) -> dict[str, tuple[AbstractContextManager[Any], Fault]]:
    """Return each bug, and a fault that brings it to light."""
    state, save = Training.state, checkpoint.Checkpoints.save
    middle = kill(reference, "open .checkpoint", 12)
    return {
        "none": (nullcontext(), middle),
        "momentum lost": (
            patch.object(Training, "state", lambda self: without(state, "optimizer", self)),
            middle,
        ),
        "rows twice": (
            patch.object(writer.Rows, "restart", lambda self, keep: self.append([])),
            kill(reference, "write .checkpoint", 10),
        ),
        "end not saved": (
            patch.object(checkpoint.Checkpoints, "save", lambda self, training: lazy(save, self, training)),
            middle,
        ),
        "exit code 0": (
            patch.object(checkpoint.Checkpoints, "save", deaf),
            Fault("nothing", [Injury([Strike(40, lambda *_: None)])]),
        ),
        "left behind": (
            patch.object(lock.Lock, "release", lambda self: None),
            Fault("nothing", [Injury([Strike(40, lambda *_: None)])]),
        ),
    }


def main(folder: Path) -> None:
    """Print verdicts: of every kind once, and of every planted bug."""
    made = certify(folder, len(KINDS), SEED, configurations=("gse", "set"))
    kinds = [vars(v) for v in made.verdicts]
    os.environ["DSTRUN_CACHE"] = str(folder / "cache")
    reference = refer(folder / "undisturbed", CONFIGURATIONS["gse"])
    bugs = {}
    for number, (name, (bug, fault)) in enumerate(planted(reference).items()):
        verdict, trial = Verdict(number, name, "gse", fault.said), Trial(folder / str(number), reference)
        with bug:
            trial.suffer(fault, verdict, Random(0))
            trial.settle()
        bugs[name] = vars(verdict)
    print(json.dumps({"kinds": kinds, "bugs": bugs, "skipped": made.skipped, "page": made.page(), "json": made.json()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
