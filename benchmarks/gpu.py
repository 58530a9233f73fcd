"""One slot on a GPU machine, turned into evidence: checks, times beside their baselines, and whole recipes.

python benchmarks/gpu.py --out DIR [--seconds 540] [--only PHASE,...] [--device cuda|cpu]

Phases: where (always), right, single, packed, wide, train. Each has a share of the time that is left for it and those
after it; one that fails is told, and the next starts. DIR is packed anew every half a minute, so that a kill loses
little. docs/gpu.md says what for, and how to carry everything to a machine without a network. Exit code 1 where a check
has failed, 3 where a library is missing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_phases import kit

if TYPE_CHECKING:
    from gpu_phases.slot import Phase, Slot

PACK_S = 8.0
"""Kept for the last packing."""


def main() -> int:
    asked = arguments()
    kit.ready()
    from gpu_phases import pack
    from gpu_phases.slot import Slot

    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "log.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dstrun-gpu-work-", ignore_cleanup_errors=True) as folder:
        slot = Slot(asked.out, Path(folder), asked.device, time.monotonic() + asked.seconds - PACK_S)
        slot.say(f"commit {slot.commit or 'unknown'}, {asked.seconds:.0f} s on {asked.device}")
        pack.unpack(slot)
        packer = pack.Packer(slot)
        packer.start()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # to pack what there is
        try:
            go_through(slot, asked.only)
        finally:
            packer.end()
            kit.clear()
        summarize(slot)
        return int(any(check["state"] == "failed" for check in slot.checks.values()))


def phases(device: str) -> list[Phase]:
    """Return the phases in order; a new one is a line here and a module."""
    from gpu_phases.packed import packed
    from gpu_phases.right import right
    from gpu_phases.single import single
    from gpu_phases.slot import Phase
    from gpu_phases.train import train
    from gpu_phases.where import where
    from gpu_phases.wide import wide

    full = device == "cuda"
    return [
        Phase("where", 0.07 if full else 0.1, where, least=20.0 if full else 4.0),
        Phase("right", 0.18 if full else 0.5, right),
        Phase("single", 0.18, single),
        Phase("packed", 0.09 if full else 0.14, packed),
        Phase("wide", 0.06 if full else 0.1, wide),
        Phase("train", 0.48 if full else 0.25, train),
    ]


def go_through(slot: Slot, only: list[str]) -> None:
    """Do the phases asked for, one after another; none keeps the next from starting."""
    left = [phase for phase in phases(slot.device) if phase.name in only or phase.name == "where"]
    while left:
        phase, shares = left[0], sum(phase.share for phase in left)
        began = time.monotonic()
        deadline = began + min(max(slot.left() * phase.share / shares, phase.least), slot.left())
        slot.phase = phase.name
        slot.say(f"-- {phase.name}, {deadline - began:.0f} s")
        try:
            state = "cut" if phase.do(slot, deadline) is False else "done"
        except Exception as error:
            traceback.print_exc()
            state = f"failed: {type(error).__name__}: {error}"
            slot.check(f"phase {phase.name}", "failed", state)
        slot.phases[phase.name] = {"state": state, "seconds": round(time.monotonic() - began, 1)}
        left.pop(0)
        if not slot.card:
            slot.say("no device was found: nothing else is tried")
            return


def summarize(slot: Slot) -> None:
    """Print a compact table: numbers beside estimates, then what has not passed."""
    for line in slot.table().splitlines():
        name, value, unit, estimate, *_ = line.split(",")
        slot.say(f"{name:<34} {value:>12} {unit:<10} {estimate}")
    states = [check["state"] for check in slot.checks.values()]
    slot.say(", ".join(f"{states.count(state)} {state}" for state in ("passed", "failed", "cut", "skipped")))
    for name, check in slot.checks.items():
        if check["state"] in ("failed", "cut"):
            slot.say(f"{check['state'].upper()} {name}: {check['told']}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found; eight files at most")
    parser.add_argument("--seconds", type=float, default=540.0, help="after which all is packed")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="PHASE,...")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: stand-ins that take seconds")
    asked = parser.parse_args()
    names = ["where", "right", "single", "packed", "wide", "train"]
    if strange := set(asked.only) - {*names}:
        parser.error(f"--only {min(strange)} is none of {', '.join(names)}")
    asked.only = asked.only or names
    return asked


if __name__ == "__main__":
    sys.exit(main())
