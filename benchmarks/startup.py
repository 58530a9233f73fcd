"""How long the command line takes before it does anything: medians over interleaved runs, and what was imported.

python benchmarks/startup.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "dstrun --help": (["--help"], {}),
    "dstrun help all": (["help", "all"], {}),
    "dstrun help method": (["help", "method"], {}),
    "dstrun help model=resnet56": (["help", "model=resnet56"], {}),
    "completion of grow=": (["-sc", "query=bash"], {"COMP_LINE": "dstrun grow=", "COMP_POINT": "12"}),
    "dstrun sparsty=0.9": (["sparsty=0.9"], {}),
    "dstrun status .": (["status", "."], {}),
    "python -c 'import torch'": (None, {}),
}
HEAVY = ("torch", "torchvision", "matplotlib", "wandb", "sklearn")


def seconds(words: list[str] | None, extra: dict[str, str]) -> float:
    command = [sys.executable, "-c", "import torch"] if words is None else [sys.executable, "-m", "dstrun", *words]
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, **extra}, capture_output=True)
    return time.perf_counter() - start


def imported(words: list[str] | None, extra: dict[str, str]) -> str:
    if words is None:
        return "torch"
    lines = "import sys\nfrom dstrun.cli.main import main\ntry:\n  main(sys.argv[1:])\nexcept SystemExit:\n  pass\n"
    lines += f"print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", lines, *words], env={**os.environ, **extra}, capture_output=True, text=True
    )
    return done.stderr.splitlines()[-1] or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(seconds(*command))
    print(f"{'command':<27} {'median s':>8} {'min s':>7} {'max s':>7}  heavy libraries imported")
    for name, found in times.items():
        row = f"{name:<27} {statistics.median(found):8.2f} {min(found):7.2f} {max(found):7.2f}"
        print(f"{row}  {imported(*COMMANDS[name])}")


if __name__ == "__main__":
    main()
