"""Run the answers of ``dstrun plan ... fit=`` under a limit of memory, each in a process of its own.

    python benchmarks/memory_fit.py LIMIT WORDS...        as in 300MB model=resnet20 dataset=cifar10 method=gse

A child takes the steps that a prediction looks at, on noise, and none of them is measured. What it needs before
(libraries, compiled kernels) is let grow first, by a run of the same words on two images; then its address space may
grow by the limit (``RLIMIT_AS``), and by the images, which no peak has in it. Every block of more than 64 kB is mapped
and given back by itself (``MALLOC_MMAP_THRESHOLD_``), so that the process holds what is allocated: the C library's
heap, which runs keep for speed, holds up to twice as much. Besides, the largest batch is run with a third more images,
which has to fail. Prints the predicted peak, the one that another child measures, by how much the resident memory has
risen (``VmHWM``) where it was limited, and how that ended. Limits below some 50 MB are not held: as much address space
of the first run is used again.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import resource
import subprocess
import sys
from typing import Any

import memory_grid

from dstrun.account.memory import resident_peak_bytes
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.run import fitting
from dstrun.system.trouble import out_of_memory

COMMON = ("wandb=disabled", "epochs=20")
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""Settings of the C library with which a process holds what is allocated, and no more."""


def composed(words: list[str]) -> Experiment:
    """Compose a run that is not logged."""
    return compose([*COMMON, *words])


def run(words: list[str]) -> None:
    """Take the steps of one configuration, unmeasured."""
    memory_grid.take_steps(memory_grid.start(composed(words)), measure=False)


def limited(words: list[str], limit: int) -> dict[str, Any]:
    """Run one configuration within the limit, and return what became of it."""
    run([*(word for word in words if not word.startswith(("batch_size=", "microbatch="))), "batch_size=2"])
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    data = composed(words).build("dataset")
    images = data.train_images * math.prod(data.image)
    with open("/proc/self/status") as file:
        size = {
            line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(("VmSize", "VmRSS"))
        }
    resident_peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (size["VmSize"] + images + limit,) * 2)
    ended = "fits"
    try:
        run(words)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        ended = "out of memory"
    return {"ended": ended, "risen": (resident_peak_bytes() or 0) - size["VmRSS"] - images}


def in_child(*words: str) -> dict[str, Any]:
    """Call this file in a process of its own."""
    call = [sys.executable, __file__, *words]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=os.environ | EXACT)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Print a row an answer."""
    limit, words = fitting.parse(sys.argv[1]), sys.argv[2:]

    def again(more: Any) -> Experiment:
        return composed(merged(words, more))

    wrong = 0
    for row in fitting.fit(again([]), again, limit):
        if not row["fits"]:
            continue
        said = merged(words, row["words"])
        found = in_child("--limited", str(limit), *said) | in_child("--measured", *said)
        told = f"predicted {row['peak_bytes']:,}, measured {found['measured']:,}, risen {found['risen']:,}"
        print(f"{row['what']} ({' '.join(row['words'])}): {told}: {found['ended']}", flush=True)
        wrong += found["ended"] != "fits"
        if row["what"] == "the largest batch":
            more = [f"batch_size={4 * again(row['words']).config['batch_size'] // 3}"]
            found = in_child("--limited", str(limit), *merged(words, more))
            print(f"a third more ({more[0]}): risen {found['risen']:,}: {found['ended']}", flush=True)
            wrong += found["ended"] == "fits"
    return wrong


def merged(words: list[str], more: list[str]) -> list[str]:
    """Return words with others in place of those of the same keys."""
    keys = {word.partition("=")[0] for word in more}
    return [*(word for word in words if word.partition("=")[0] not in keys), *more]


if __name__ == "__main__":
    if sys.argv[1] == "--limited":
        print(json.dumps(limited(sys.argv[3:], int(sys.argv[2]))))
    elif sys.argv[1] == "--measured":
        print(json.dumps({"measured": memory_grid.measured(composed(sys.argv[2:]))["peak_bytes"]}))
    else:
        sys.exit(main())
