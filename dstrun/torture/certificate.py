"""N faults, their verdicts, and the page that reports them."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstrun.torture.fault import KINDS, Reference, can_mount, explained
from dstrun.torture.place import place, workshop
from dstrun.torture.trial import BAD, CONFIGURATIONS, TOGETHER, VERDICTS, Verdict, case, configuration, refer

WORST = 8
"""How many bad faults the page tells of; the files of ``--out`` have all."""


@dataclass
class Certificate:
    """What came of the faults.

    Attributes:
        place: where they were.
        seed: that draws them.
        asked: how many there should have been.
        kinds: every kind of fault by name, and the line that explains it.
        repeatable: whether a fault can be repeated by its number.
        skipped: kinds that cannot be had here, and why.
        verdicts: one for each fault that was done, in their order.
        seconds: it took.
    """

    place: dict[str, str]
    seed: int
    asked: int
    kinds: Mapping[str, str] = field(default_factory=lambda: {name: explained(name) for name in KINDS})
    repeatable: bool = True
    skipped: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> list[Verdict]:
        """List the faults that no user should meet, the worst first."""
        return sorted((v for v in self.verdicts if v.verdict in BAD), key=lambda v: -VERDICTS.index(v.verdict))

    @property
    def holds(self) -> bool:
        """Return whether all faults were done and none was bad."""
        return not self.bad and len(self.verdicts) == self.asked

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each kind: how many struck, and what became of them."""
        found = {name: [v for v in self.verdicts if v.kind == name and v.struck] for name in self.kinds}
        rows = []
        for name, verdicts in found.items():
            counts = Counter(v.verdict for v in verdicts)
            seconds = sum(v.seconds for v in verdicts)
            row = {"kind": name, "faults": len(verdicts), "what": self.kinds[name], "seconds": round(seconds, 1)}
            rows.append(row | {verdict: counts[verdict] for verdict in VERDICTS})
        return rows

    def sentence(self) -> str:
        """Return the verdict in words."""
        struck = sum(v.struck for v in self.verdicts)
        counts = Counter(v.verdict for v in self.verdicts if v.struck or v.verdict in BAD)
        bad = ", ".join(f"{counts[verdict]} {verdict}" for verdict in BAD if counts[verdict])
        early = "" if len(self.verdicts) == self.asked else f" (stopped early, of {self.asked})"
        good = (
            f"after {counts['right']} the run finished bit for bit equal, {counts['told']} were reported and repaired"
        )
        return f"{struck} faults{early}: " + (f"NOT SAFE: {bad}; {good}" if bad else f"nothing lost or wrong; {good}")

    def page(self) -> str:
        """Write the page in Markdown."""
        lines = [f"# dstrun torture: {self.sentence()}", ""]
        lines += [f"- {name}: {value}" for name, value in self.place.items()]
        lines += [f"- seed {self.seed}, {self.seconds:.0f} s"]
        missed = sum(not v.struck for v in self.verdicts)
        lines += (
            [f"- {missed} faults had no effect (the run had ended, or there was nothing to damage)"] if missed else []
        )
        lines += [f"- skipped: {name}: {why}" for name, why in self.skipped.items()] + [""]
        heads = ("kind", "faults", *VERDICTS, *(["seconds"] if self.repeatable else []))
        shown = [row for row in self.rows() if row["faults"] or self.asked > len(self.kinds)]
        rows = [[str(row[head]) for head in heads] for row in shown]
        widths = [max(len(row[i]) for row in [list(heads), *rows]) for i in range(len(heads))]
        lines += [_line(heads, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(row, widths) for row in rows]
        for v in self.bad[:WORST]:
            lines += ["", f"{v.verdict}: {v.kind} on {v.configuration}: {v.said}", f"  {v.why}"]
            lines += [f"  {self.repeat(v)}"] if self.repeatable else []
        if len(self.bad) > WORST:
            lines += ["", f"... and {len(self.bad) - WORST} more"]
        return "\n".join(lines)

    def repeat(self, verdict: Verdict) -> str:
        """Return the command that repeats a fault."""
        return f"dstrun torture --seed {self.seed} --only {verdict.number}"

    def json(self) -> str:
        """Return everything for programs."""
        faults = [vars(v) | ({"repeat": self.repeat(v)} if self.repeatable else {}) for v in self.verdicts]
        whole = {"schema": 1, "holds": self.holds, "verdict": self.sentence(), "place": self.place, "seed": self.seed}
        return json.dumps(whole | {"skipped": self.skipped, "kinds": self.rows(), "faults": faults}, indent=1)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Line up cells: the first to the left, numbers to the right."""
    first, *others = zip(cells, widths, strict=True)
    return " | ".join([f"| {first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]) + " |"


def certify(
    results: Path,
    faults: int,
    seed: int,
    workers: int = 1,
    only: int | None = None,
    tell: Callable[[Verdict], None] = lambda verdict: None,
    configurations: Sequence[str] = tuple(CONFIGURATIONS),
) -> Certificate:
    """Inject faults, and say what became of them. Ctrl-C ends it early, with what was done.

    Args:
        results: everything is written in a new folder below it, which is removed at the end.
        faults: how many.
        seed: that draws them.
        workers: cases at once.
        only: the one fault to do, with those of its case before it.
        tell: called after each fault.
        configurations: names of the runs to suffer.
    """
    numbers = list(range(faults)) if only is None else list(range(only - only % TOGETHER, only + 1))
    made, started = Certificate(place(results), seed, len(numbers)), time.monotonic()
    with suppress(KeyboardInterrupt), workshop(results) as folder:
        if not can_mount(folder):
            made.skipped["small-disk"] = "only root may mount a small file system"
        cases = [numbers[at : at + TOGETHER] for at in range(0, len(numbers), TOGETHER)]
        suffer = dict.fromkeys(configuration(seed, case, configurations) for case in cases)
        references = {name: refer(folder / f"undisturbed-{name}", CONFIGURATIONS[name]) for name in suffer}
        kinds = list(KINDS)
        for verdict in _all(cases, folder, configurations, references, kinds, seed, workers, made.skipped):
            made.verdicts.append(verdict)
            tell(verdict)
    made.verdicts.sort(key=lambda verdict: verdict.number)
    made.seconds = time.monotonic() - started
    return made


def _all(
    cases: Sequence[Sequence[int]],
    folder: Path,
    configurations: Sequence[str],
    references: dict[str, Reference],
    kinds: Sequence[str],
    seed: int,
    workers: int,
    skipped: dict[str, str],
) -> Iterator[Verdict]:
    """Do every case, here or in processes forked from this one before it starts any thread."""
    names = [configuration(seed, numbers, configurations) for numbers in cases]
    jobs = [
        (seed, numbers, folder / f"case-{numbers[0]}", name, references[name], kinds, set(skipped))
        for numbers, name in zip(cases, names, strict=True)
    ]
    if workers == 1 or len(jobs) == 1:
        for job in jobs:
            yield from case(*job)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        try:
            for ended in as_completed([pool.submit(_case, *job) for job in jobs]):
                yield from ended.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _case(*job: Any) -> list[Verdict]:
    return list(case(*job))
