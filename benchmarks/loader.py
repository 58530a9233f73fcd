"""Time the streaming loader against torchvision's ImageFolder with a plain DataLoader, in turns, with as many workers.

python benchmarks/loader.py DIR --workers 2      # DIR/train/CLASS/*.JPEG; few files are read several times

Both read the same files in a random order, decode them, crop and resize a random part to 224x224, mirror half, and
give normalised float batches. Each turn starts its workers anew and counts from the second batch on, while the workers
go on ahead.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from dstrun.dataset.imagenet import ImageNet


def plain(root: Path, batch: int, workers: int) -> Iterator[torch.Tensor]:
    """Yield batches as torchvision's reference script makes them."""
    made = v2.Compose(
        [
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(ImageNet.mean, ImageNet.std),
        ]
    )
    images = ImageFolder(str(root / "train"), made)
    for x, _ in DataLoader(images, batch, shuffle=True, num_workers=workers, drop_last=True):
        yield x


def ours(root: Path, batch: int, workers: int) -> Iterator[torch.Tensor]:
    """Yield the batches that a run trains on."""
    data = ImageNet(root=str(root), workers=workers).open("cpu", batch, 0, channels_last=False)
    try:
        for step in range(data.steps_per_epoch):
            yield data.batch(step)[0]
    finally:
        data.close()


def rate(batches: Iterator[torch.Tensor], count: int) -> tuple[float, float]:
    """Return images a second after the first batch, and seconds until that."""
    start = time.perf_counter()
    size = len(next(batches))
    first = time.perf_counter()
    for _ in range(count):
        next(batches)
    end = time.perf_counter()
    batches.close()  # type: ignore[attr-defined]
    return count * size / (end - first), first - start


def spread(root: Path, folder: Path, count: int) -> Path:
    """Link the files of a data set again and again until there are enough."""
    files = sorted(path for path in (root / "train").rglob("*") if path.is_file())
    for number in range(count):
        source = files[number % len(files)]
        for split in ("train", "val"):
            target = folder / split / source.parent.name / f"{number}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if split == "train" or number < len(files):
                target.symlink_to(source.absolute())
    return folder


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("root", type=Path)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--batches", type=int, default=8, help="timed in each turn")
    made.add_argument("--rounds", type=int, default=5)
    told = made.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        root = spread(told.root, folder, told.batch * (told.batches + 1 + 4 * max(1, told.workers)))
        found: dict[str, list[tuple[float, float]]] = {"plain": [], "dstrun": []}
        for _ in range(told.rounds):
            for name, make in (("plain", plain), ("dstrun", ours)):
                found[name].append(rate(make(root, told.batch, told.workers), told.batches))
        for name, rows in found.items():
            rates = [images for images, _ in rows]
            print(
                f"{name:8} {statistics.median(rates):7.1f} images/s (from {min(rates):.1f} to {max(rates):.1f}), "
                f"first batch after {statistics.median(s for _, s in rows):.2f} s"
            )
        ratios = [b[0] / a[0] for a, b in zip(found["plain"], found["dstrun"], strict=True)]
        print(
            f"dstrun over plain: median {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
