"""From an encoded image to pixels: what the worker processes do. S is the size of the square that a network sees."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import tarfile
import threading
import warnings
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dstrun.dataset import parquet
from dstrun.dataset.listing import Place
from dstrun.system.bounded import piece
from dstrun.system.trouble import ConfigError, why

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
FILE_BYTES = 1 << 26
"""Of an encoded image."""
PIXELS = 1 << 27
"""Of an image once decoded; the largest of ImageNet has half as many."""
SLIMNESS = 100
"""How many times as long as wide an image may be, whose shorter side is resized."""
WINDOW_BYTES = 1 << 28
"""Of row groups that a process keeps, and over which the order of an epoch goes back and forth."""


class Damaged(Exception):
    """An image that cannot be decoded; the message says why and does not name it."""


class Request(NamedTuple):
    """Images to decode, at most a chunk: where they are, and the seed by which each is augmented, if it is."""

    places: list[Place]
    seeds: list[int] | None


class Fault(NamedTuple):
    """An image of a request that could not be decoded: its position, and a sentence that names it."""

    position: int
    sentence: str


@dataclass(frozen=True)
class Reader:
    """Answers requests; all that it knows is how images are to look, so that any process can answer any request.

    Attributes:
        size: S.
        shorter: to what the shorter side is resized before the middle is cut out.
        flip: whether an augmented image is mirrored half of the time.
    """

    size: int
    shorter: int
    flip: bool

    def __getitem__(self, request: Request) -> tuple[Tensor, list[Fault]]:
        """Decode the images of a request.

        Returns:
            (count, 3, S, S) uint8, black where there is a fault, and the faults.
        """
        x = torch.zeros(len(request.places), 3, self.size, self.size, dtype=torch.uint8)
        faults = []
        state = torch.default_generator.get_state() if request.seeds else None
        try:
            for i, place in enumerate(request.places):
                try:
                    image = picture(encoded(place))
                except Damaged as error:
                    faults.append(Fault(i, f"{named(place)} {error}"))
                    continue
                if request.seeds:  # transforms draw from the default generator, and from no other
                    torch.default_generator.manual_seed(request.seeds[i])
                x[i] = _transform(self, request.seeds is not None)(image)
        finally:
            if state is not None:
                torch.default_generator.set_state(state)
        return x, faults


@lru_cache(maxsize=8)
def _transform(reader: Reader, augmented: bool) -> Any:
    from torchvision.transforms import v2

    if augmented:
        cut = [v2.RandomResizedCrop(reader.size), *([v2.RandomHorizontalFlip()] if reader.flip else [])]
    else:
        cut = [v2.Resize(reader.shorter), v2.CenterCrop(reader.size)]
    return v2.Compose([*cut, v2.PILToTensor()])


def named(place: Place) -> str:
    """Name an image as a person can find it."""
    if place.path.endswith(".parquet"):
        return f"{place.path}: row {place.length} of row group {place.start}"
    if not place.start:
        return place.path
    name = f"the member at byte {place.start}"
    with suppress(OSError, tarfile.TarError, UnicodeDecodeError):
        header = piece(place.path, place.start - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
        name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
    return f"{place.path}: {name}"


def encoded(place: Place) -> bytes:
    """Read an encoded image.

    Raises:
        Damaged: it is not there as a whole.
    """
    if place.path.endswith(".parquet"):
        try:
            found = _group(place.path, place.start)[place.length]
        except ConfigError as error:
            raise Damaged(f"cannot be read: {error}") from error
        if not found:
            raise Damaged("has no bytes")
        return found
    if place.length > FILE_BYTES:
        raise Damaged(f"has {place.length:,} bytes, more than {FILE_BYTES:,}")
    if not place.length:
        raise Damaged("is empty")
    try:
        found = piece(place.path, place.start, place.length)
    except OSError as error:
        raise Damaged(f"cannot be read: {why(error)}") from error
    if len(found) < place.length:
        raise Damaged(f"has {len(found):,} bytes, and had {place.length:,} when it was listed")
    return found


_groups: OrderedDict[tuple[str, int], list[bytes | None]] = OrderedDict()


def _group(path: str, number: int) -> list[bytes | None]:
    """Read a row group, or take it from those read last."""
    key = path, number
    if key not in _groups:
        _groups[key] = parquet.encoded(path, number, FILE_BYTES)
        while len(_groups) > 1 and sum(len(x or b"") for group in _groups.values() for x in group) > 2 * WINDOW_BYTES:
            _groups.popitem(last=False)
    _groups.move_to_end(key)
    return _groups[key]


def picture(found: bytes) -> Image.Image:
    """Decode an image and convert it to RGB: grey, palette, CMYK; what is transparent loses that.

    Raises:
        Damaged: it is no image, is cut off, or is larger than images are.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(found), formats=FORMATS) as image:
                width, height = image.size
                if width * height > PIXELS:
                    raise Damaged(f"is {width}x{height}, larger than {PIXELS:,} pixels")
                if max(width, height) > SLIMNESS * min(width, height):
                    raise Damaged(f"is {width}x{height}, more than {SLIMNESS} times as long as wide")
                return _rgb(image)
    except (Damaged, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Damaged(f"is too large for an image: {error}".rstrip(".")) from error
    except Image.UnidentifiedImageError as error:
        raise Damaged(f"is not a readable image ({', '.join(FORMATS)})") from error
    except Exception as error:  # A damaged image can raise nearly anything, and all of it means: damaged.
        raise Damaged(f"cannot be decoded: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":  # which convert would copy
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits of grey, which PIL would cut off at 255
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def start_worker(_number: int) -> None:
    """Leave signals to the process that trains, which finishes its step and then ends its workers; end when it does.

    PyTorch's own watch looks at the parent, which is the process that forks workers: it lives as long as they do.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if (trains := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(trains.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
