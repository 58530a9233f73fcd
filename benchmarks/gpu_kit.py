"""Put what a GPU machine without a network has to be sent into ``.gpu/``: images, the last slot's results, the commit.

python benchmarks/gpu_kit.py --data DIR [--resume DIR]

``make gpu-kit`` calls it, and puts the wheels there. DIR of ``--data`` is what ``dataset.root=`` takes; of ``--resume``
what ``benchmarks/gpu.py --out DIR`` has left.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from gpu_phases.kit import KIT, ROOT
from gpu_phases.names import ARCHIVES

NEEDED = ("train-*.parquet", "test-*.parquet")
PICKLES = "cifar-10-batches-py"


def images(root: Path) -> Path | None:
    """Return the folder of CIFAR-10 below a root, as ``dataset.root`` finds it."""
    for place in (root / "cifar10", root):
        if all(any(place.glob(pattern)) for pattern in NEEDED):
            return place
    return next((place for place in (root / "cifar10", root) if (place / PICKLES).is_dir()), None)


def copy_images(place: Path) -> None:
    """Copy the files of CIFAR-10 alone."""
    target = KIT / "data"
    target.mkdir(parents=True, exist_ok=True)
    if (place / PICKLES).is_dir() and not any(place.glob("train-*.parquet")):
        shutil.copytree(place / PICKLES, target / PICKLES, dirs_exist_ok=True)
        return
    for pattern in NEEDED:
        for file in place.glob(pattern):
            shutil.copyfile(file, target / file.name)


def commit() -> str:
    """Return the commit, with a ``+`` where files differ from it; empty where there is none."""

    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--resume", type=lambda text: Path(text) if text else None)
    asked = parser.parse_args()
    if (place := images(asked.data)) is None:
        print(
            f"no CIFAR-10 in {asked.data}: make gpu-kit DATA=DIR, the folder that dataset.root= takes", file=sys.stderr
        )
        return 2
    KIT.mkdir(exist_ok=True)
    copy_images(place)
    (KIT / "commit").write_text(f"{commit()}\n")
    if asked.resume is not None:
        (KIT / "resume").mkdir(exist_ok=True)
        left = [asked.resume / name for name in ("checks.json", *ARCHIVES)]
        if not (there := [path for path in left if path.is_file()]):
            print(f"{asked.resume} has nothing that benchmarks/gpu.py has left", file=sys.stderr)
            return 2
        for path in there:
            shutil.copyfile(path, KIT / "resume" / path.name)
    for folder in ("wheels", "data", "resume"):
        size = sum(path.stat().st_size for path in (KIT / folder).rglob("*") if path.is_file())
        print(f".gpu/{folder:<7} {size / 1e6:6.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
