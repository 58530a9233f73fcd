"""What a flipped bit in a file of a run does: it is told, healed, or read by nobody; never silently another number.

python benchmarks/flips.py [--flips 2000] [--seed 0]

Half of the flips strike a finished run, half one that was stopped. After each, everything that reports read is read,
and then the same command is given again, in this process.
"""

from __future__ import annotations

import argparse
import io
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from dstrun import config, sync
from dstrun.option import ConfigError
from dstrun.record import sealed
from dstrun.report import load, status
from dstrun.run import run

WORDS = (
    "model=mlp", "dataset=digits", "wandb=disabled", "sparsity=0.8", "epochs=2", "optimizer.lr=0.05", "threads=1",
    "checkpoint.every_minutes=0.0001",
)  # fmt: skip
KINDS = ("told", "healed", "nothing reads it", "SILENT")
LASTING = ("accuracy", "flops", "updates", "layers", "parameters", "rows", "config", "choices")
"""Of a record, what the same training gives again."""


def make(root: Path) -> dict[str, Path]:
    """Leave a finished run, and the same without its record, as a kill before it would."""
    found = {}
    for state in ("finished", "stopped"):
        folder = run(config.compose([*WORDS, f"results={root / state}"])).folder
        if state == "stopped":
            (folder.path / "record.json").unlink()
            said = sealed.read(folder.path / "status.json")
            sealed.write(folder.path / "status.json", said | {"state": "interrupted"})
        found[state] = folder.path
    return found


def look(folder: Path) -> Any:
    """Return every number that readers take from a run's folder."""
    (found,) = load.runs(folder)
    logging.getLogger("dstrun").warning("%s", " ".join(found.warnings))
    row = status.describe(found, found.id, 0.0)
    return row, found.record, load.setting(found), load.metrics(found), sync._changes(found)


def again(folder: Path) -> Any:
    """Give the command again; return the results."""
    record = run(config.compose([*WORDS, f"results={folder.parents[1]}"])).record or {}
    return {key: record.get(key) for key in LASTING}, (folder / "metrics.csv").read_bytes().count(b"\n")


def listen(asked: Any, folder: Path) -> tuple[Any, str]:
    """Return what a reader gives, and all that it says."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger("dstrun").addHandler(handler)
    load._said.clear()
    try:
        with redirect_stderr(heard), redirect_stdout(heard):
            return asked(folder), heard.getvalue()
    except ConfigError as error:
        return None, f"{heard.getvalue()}{error}"
    finally:
        logging.getLogger("dstrun").removeHandler(handler)


def strike(kept: Path, folder: Path, file: str, at: int, bit: int, right: Sequence[Any]) -> str:
    """Flip one bit in a copy; return what became of it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    whole = (folder / file).read_bytes()
    flipped = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    (folder / file).write_bytes(flipped)
    (seen, said), (result, more) = listen(look, folder), listen(again, folder)
    if f"{folder.name}/{file}" in said + more:
        return "told"
    if (seen, result) != (right[0], right[1]):
        return "SILENT"
    now = (folder / file).read_bytes() if (folder / file).exists() else b""
    return "nothing reads it" if now == flipped else "healed"


def flips(root: Path, count: int, seed: int) -> dict[tuple[str, str], Counter[str]]:
    """Strike ``count`` times; return what became of it by run and file."""
    draw, found = random.Random(seed), {}
    for state, folder in make(root).items():
        kept = root / f"{state}.kept"
        shutil.copytree(folder, kept)
        right = [listen(look, folder)[0], listen(again, folder)[0]]
        files = sorted(p.name for p in kept.iterdir() if p.is_file() and p.stat().st_size)
        for i in range(count // 2):
            file = files[i % len(files)]
            at = draw.randrange((kept / file).stat().st_size)
            kind = strike(kept, folder, file, at, bit := draw.randrange(8), right)
            found.setdefault((state, file), Counter())[kind] += 1
            if kind == "SILENT":
                print(f"silent: {state} {file} byte {at} bit {bit}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = flips(Path(root), arguments.flips, arguments.seed)
    print(f"{'run':<10}{'file':<24}" + "".join(f"{kind:>18}" for kind in KINDS))
    for (state, file), counts in found.items():
        print(f"{state:<10}{file:<24}" + "".join(f"{counts[kind]:>18}" for kind in KINDS))
    total = sum(found.values(), Counter())
    print(f"{'all':<34}" + "".join(f"{total[kind]:>18}" for kind in KINDS))
    raise SystemExit(1 if total["SILENT"] else 0)


if __name__ == "__main__":
    main()
