"""What a changed byte in a file of a run does: it is told, healed, or read by nobody; never silently another number.

python benchmarks/flips.py [--flips 2000] [--seed 0]

Half of the flips strike an experiment whose run is finished, half one whose run was killed in its second epoch, evenly
over all files, hidden ones and those of hidden folders too. One flip in two changes a bit, one a whole byte. After
each, everything that readers take from the files is read (the data of status, table, export, sync, and the notes of
sweeps), and then the same command is given again and what it leaves compared bit for bit; all in this process.

told: a sentence names the file. healed: nothing differs, and the file is what it was, or gone, after the command.
SILENT: a reader or the command gives something else, and what it says does not name the file.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from dstrun.cli.words import found_runs
from dstrun.config.composition import compose
from dstrun.launcher.sweep import Plan
from dstrun.launcher.task import Task
from dstrun.report import export, format, load, status, table
from dstrun.report.page import sweep
from dstrun.run import sync
from dstrun.run.lifecycle import run
from dstrun.system import progress
from dstrun.system.trouble import ConfigError
from dstrun.torture.compare import differences, left_by
from dstrun.torture.points import Strike
from dstrun.torture.victim import Injury, attempt

WORDS = (
    "model=mlp", "dataset=digits", "wandb=disabled", "sparsity=0.8", "epochs=3", "optimizer.lr=0.05", "threads=1",
    "checkpoint.every_minutes=1e-9",
)  # fmt: skip
KINDS = ("told", "healed", "nothing reads it", "SILENT")
TO = sync.Destination("online", "dstrun")
NOW = time.time()


class Experiment:
    """A folder of an experiment with one run, what a sweep has noted of it and of another, and a mark of ``sync``.

    Args:
        root: a new folder to work in.
        killed: before which point of its writing; not at all if 0.
    """

    def __init__(self, root: Path, killed: int = 0) -> None:
        root.mkdir()
        strikes = [Strike(killed, lambda *_: os.kill(os.getpid(), signal.SIGKILL))] if killed else []
        (made,) = attempt(WORDS, root, Injury(strikes))
        self.words, self.trace = [*WORDS, f"results={root / 'results'}"], made.trace
        self.folder, self.kept = root / "results" / "default", root / "kept"
        self.tasks = [Task(compose([*self.words, f"seed={seed}"])) for seed in (0, 1)]
        self.run = self.tasks[0].folder.path
        plan = Plan(self.tasks, "local", ["dstrun", "-m", *self.words])
        plan.name = "sweep.json"
        plan.jobs.update({task.key: f"4711_{i}" for i, task in enumerate(self.tasks)})
        plan.write()
        (found,) = load.runs(self.run)
        with suppress(sync.Unsent):
            sync.Mark(self.run).write(TO, sync.make_copy(found, found.state_at(NOW)), None)
        shutil.copytree(self.folder, self.kept)
        self.files = sorted(str(p.relative_to(self.kept)) for p in self.kept.rglob("*") if p.is_file())
        self.files = [file for file in self.files if (self.kept / file).stat().st_size]
        self.right = [listen(part) for part in self.parts]

    @property
    def parts(self) -> list[Callable[[], Any]]:
        """List what is done after a flip: every reader, then the command."""
        return [self.status, self.table, self.export, self.sync, self.notes, self.again]

    def status(self) -> Any:
        """Read what ``status`` shows, which tells of damage in its rows."""
        rows = status.Sweep([self.folder]).rows(NOW)
        print(format.render(rows, status.COLUMNS, "csv"))
        return rows

    def table(self) -> Any:
        """Make the rows of ``table``, and say what the verb says."""
        return table.build(found_runs([str(self.folder)])).render("json")

    def export(self) -> Any:
        """Make both tables of ``export``, and read the curves as ``plot`` and ``report`` do."""
        found = found_runs([str(self.folder)])
        settings = [load.setting(one) for one in found]
        batches = [batch.to_pylist() for batch in export.epoch_batches(found, settings)]
        return export.run_table(found, settings, NOW).to_pylist(), batches, [load.metrics(one) for one in found]

    def sync(self) -> Any:
        """Find out what ``sync`` would send."""
        found = found_runs([str(self.folder)])
        return [(item.row, sync._changes(item.run)) for item in sync.plan(found, TO, NOW)]

    def notes(self) -> Any:
        """Read what sweeps have noted, as ``report`` and a sweep on a cluster do."""
        found = sweep.notes([self.folder], load.runs(self.folder))
        return [(note.file, note.jobs) for note in found], Plan(self.tasks, "slurm", []).earlier()

    def again(self) -> Any:
        """Run the command again; return all that it leaves, without times."""
        done = run(compose(self.words)).message == "already done"
        left = left_by(self.run)
        return left | {"checkpoint.pt": None} if done else left  # nothing reads that of a finished run

    def strike(self, file: str, at: int, mask: int) -> str:
        """Change one byte in a copy of all; return what becomes of it."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)
        flipped = bytearray(whole := (self.folder / file).read_bytes())
        flipped[at] ^= mask
        times = (self.folder / file).stat()
        (self.folder / file).write_bytes(flipped)
        os.utime(self.folder / file, ns=(times.st_atime_ns, times.st_mtime_ns))
        told = False
        for part, (right, usual) in zip(self.parts, self.right, strict=True):
            found, said = listen(part)
            names = any(f"{self.folder}/{file}" in line for line in said - usual)
            told |= names
            if next(differences(found, right), None) is not None and not (names or (told and part == self.again)):
                return "SILENT"
        now = (self.folder / file).read_bytes() if (self.folder / file).exists() else b""
        return "told" if told else "nothing reads it" if now == flipped != whole else "healed"


def listen(part: Callable[[], Any]) -> tuple[Any, set[str]]:
    """Return what a reader gives, and the lines that it says."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger("dstrun").addHandler(handler)
    progress._said.clear()
    try:
        with redirect_stderr(heard), redirect_stdout(heard):
            found = part()
    except ConfigError as error:
        found = None
        heard.write(f"\n{error}")
    finally:
        logging.getLogger("dstrun").removeHandler(handler)
    return found, set(heard.getvalue().splitlines())


def flips(root: Path, count: int, seed: int) -> dict[tuple[str, str], Counter[str]]:
    """Strike ``count`` times; return what became of it by run and file."""
    draw, found = random.Random(seed), {}
    finished = Experiment(root / "finished")
    # The second epoch's row is there, and the status does not count it yet.
    second = [number for number, point in enumerate(finished.trace, 1) if point == "open metrics.csv"][1] + 1
    for state, made in (("finished", finished), ("killed", Experiment(root / "killed", second))):
        for number in range(count // 2):
            file = made.files[number % len(made.files)]
            at = draw.randrange((made.kept / file).stat().st_size)
            mask = draw.choice((1 << draw.randrange(8), draw.randrange(1, 256)))
            kind = made.strike(file, at, mask)
            found.setdefault((state, file.removeprefix(f"{made.run.name}/")), Counter())[kind] += 1
            if kind == "SILENT":
                print(f"silent: {state} {file} byte {at} xor {mask}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = flips(Path(root), arguments.flips, arguments.seed)
    print(f"{'run':<10}{'file':<26}" + "".join(f"{kind:>18}" for kind in KINDS))
    for (state, file), counts in sorted(found.items()):
        print(f"{state:<10}{file:<26}" + "".join(f"{counts[kind]:>18}" for kind in KINDS))
    total = sum(found.values(), Counter())
    print(f"{'all':<36}" + "".join(f"{total[kind]:>18}" for kind in KINDS))
    raise SystemExit(1 if total["SILENT"] else 0)


if __name__ == "__main__":
    main()
