"""The options of ``dstrun bench``, checked before torch is imported."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from dstrun.bench.shapes import SHAPES, find
from dstrun.config.option import Above, AtLeast, OneOf, Within, check_value, nearest
from dstrun.system.trouble import ConfigError

Sparsity = Annotated[float, Within(0, 1, high_open=True)]
Count = Annotated[int, AtLeast(1)]
Seconds = Annotated[float, Above(0)]
GROWS = ("gse", "rigl")
SCALED = ("masked", "torch csr", "sparse")
SIZES = tuple(2**power for power in range(10, 21))


@dataclass(frozen=True)
class Kernel:
    """The three products of single layers."""

    layers: tuple[str, ...] = tuple(SHAPES)
    sparsity: tuple[Sparsity, ...] = (0.9, 0.95, 0.98, 0.99)
    batch: Count = 128
    rounds: Count = 9
    limit: Seconds = 30.0
    threads: Count | None = None
    device: str = "cpu"
    reference: bool = False


@dataclass(frozen=True)
class Step:
    """Whole training steps and topology updates of a network on random images."""

    model: str = "resnet56"
    sparsity: tuple[Sparsity, ...] = (0.95,)
    allocation: str = "er_fan_in"
    batch: Count = 128
    rounds: Count = 7
    limit: Seconds = 120.0
    threads: Count | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Scaling:
    """Training steps of three layers n -> n whose units keep their number of connections as n grows."""

    sizes: tuple[Count, ...] = SIZES
    degree: Count = 128
    batch: Count = 128
    rounds: Count = 5
    limit: Seconds = 120.0
    memory: Seconds | None = None
    threads: Count | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Infer:
    """Forward passes of single layers and whole networks on the CPU: ours, PyTorch's and ONNX Runtime's."""

    networks: tuple[str, ...] = ("256-256", "1024-1024", "4096-4096", "mlp", "vit", "resnet56")
    sparsity: tuple[Sparsity, ...] = (0.9, 0.95, 0.98)
    allocation: str = "er_fan_in"
    batches: tuple[Count, ...] = (1, 128)
    rounds: Count = 9
    limit: Seconds = 5.0
    threads: Count | None = None


@dataclass(frozen=True)
class Machine:
    """Bandwidth of caches and memory, and the rate of multiply-adds, on the CPU."""

    kilobytes: tuple[Count, ...] = (16, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 262144)
    rounds: Count = 7
    threads: Count | None = None


HELP = {
    "kilobytes": "kilobytes that each thread reads and copies again and again, comma-separated",
    "layers": "layers, comma-separated; I-O is a linear layer from I to O features",
    "sparsity": "sparsity levels (zeros / weights), comma-separated",
    "batch": "batch size",
    "rounds": "how often every implementation is timed",
    "limit": "seconds after which an implementation is not timed again",
    "threads": "CPU threads (default: all cores)",
    "device": "cpu or cuda",
    "reference": "time the plain PyTorch version of the sparse kernels too",
    "networks": "networks (dstrun help model), comma-separated; I-O is a linear layer from I to O features",
    "batches": "batch sizes, comma-separated",
    "model": "a network (dstrun help model)",
    "allocation": "how connections are allocated to layers",
    "sizes": "widths n, comma-separated",
    "degree": "active connections per unit",
    "memory": "GB of device memory that the processes may use together (default: three quarters of what is free)",
}
BENCHES: dict[str, type[Kernel] | type[Step] | type[Scaling] | type[Infer] | type[Machine]] = {
    "kernel": Kernel,
    "step": Step,
    "scaling": Scaling,
    "infer": Infer,
    "machine": Machine,
}


def read(bench: str, made: argparse.ArgumentParser, words: Sequence[str]) -> tuple[Any, str, Path]:
    """Read a bench's options.

    Args:
        bench: one of ``BENCHES``.
        made: its parser, to which the options are added.
        words: as typed.

    Returns:
        The settings, how to print rows, and the file to write.

    Raises:
        ConfigError: an unknown name, or a value out of its bounds.
    """
    kind = BENCHES[bench]
    for item in fields(kind):
        default = item.default
        if isinstance(default, bool):
            made.add_argument(f"--{item.name}", action="store_true", help=HELP[item.name])
            continue
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        note = "" if default is None else f" (default: {shown})"
        made.add_argument(f"--{item.name}", default=default, help=HELP[item.name] + note)
    made.add_argument("--out", type=Path, default=Path("results", "bench", f"{bench}.csv"), help="file to write")
    given = vars(made.parse_args(words))
    form, out = given.pop("format"), given.pop("out")
    if out.suffix != ".csv":
        raise ConfigError(f"--out {out} must end in .csv")
    return kind(**{key: READERS[key](key, value) for key, value in given.items()}), form, out


def _number(hint: Any) -> Callable[[str, Any], Any]:
    kind = hint.__args__[0] if hasattr(hint, "__args__") else hint.__origin__

    def read(key: str, text: Any) -> Any:
        if text is None:
            return None
        try:
            value = kind(text)
        except ValueError:
            value = text
        check_value(f"--{key}", value, hint)
        return value

    return read


def _numbers(hint: Any) -> Callable[[str, Any], Any]:
    def read(key: str, text: Any) -> tuple[Any, ...]:
        return tuple(_number(hint)(key, word) for word in _split(key, text))

    return read


def _names(key: str, text: Any) -> tuple[str, ...]:
    words = _split(key, text)
    for word in words:
        try:
            find(word)
        except KeyError:
            allowed = f"{', '.join(SHAPES)}, or I-O for a linear layer from I to O features"
            raise ConfigError(f"--{key} {word} is not known: choose {allowed}{nearest(word, SHAPES)}") from None
    return tuple(words)


def _networks(key: str, text: Any) -> tuple[str, ...]:
    """Read names of networks, which are looked up when they are composed, and of linear layers."""
    words = _split(key, text)
    for word in words:
        if "-" in word and not re.fullmatch("[1-9][0-9]*-[1-9][0-9]*", word):
            raise ConfigError(f"--{key} {word} is not known: write I-O for a linear layer from I to O features")
    return tuple(words)


def _device(key: str, text: str) -> str:
    check_value(f"--{key}", text, Annotated[str, OneOf("cpu", "cuda")])
    return text


def _split(key: str, text: Any) -> list[Any]:
    words = list(text) if isinstance(text, tuple) else [word for word in text.split(",") if word]
    if not words:
        raise ConfigError(f"--{key} is empty")
    return list(dict.fromkeys(words))


READERS: dict[str, Callable[[str, Any], Any]] = {
    "layers": _names,
    "networks": _networks,
    "batches": _numbers(Count),
    "sparsity": _numbers(Sparsity),
    **dict.fromkeys(("sizes", "kilobytes"), _numbers(Count)),
    "device": _device,
    "limit": _number(Seconds),
    "memory": _number(Seconds),
    **dict.fromkeys(("batch", "rounds", "threads", "degree"), _number(Count)),
    **dict.fromkeys(("model", "allocation", "reference"), lambda _key, value: value),
}
