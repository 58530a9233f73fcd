"""One run from Python, as the command line trains it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dstrun.cli.start import check_kinds, check_single, read, silence_allocator
from dstrun.config import own
from dstrun.config.composition import compose
from dstrun.config.override import parse
from dstrun.record import valid
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.config.composition import Experiment
    from dstrun.run.lifecycle import Outcome


class RunError(Exception):
    """A run that ended without a record; the message says why, and where its folder is.

    Attributes:
        state: ``failed``, ``diverged`` or ``busy``.
        folder: of the run.
    """

    def __init__(self, message: str, state: str, folder: str) -> None:
        super().__init__(message)
        self.state, self.folder = state, folder


def train(*words: str, config_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()) -> dict[str, Any]:
    """Train one run in this process, as ``dstrun OVERRIDES`` does; continue it, or return its record if it is done.

    Run, folder and record are those of the command line. The settings of PyTorch (random state, threads, precision,
    determinism) are restored afterwards. Ctrl-C, and a notebook's interrupt, saves the run first; the same call
    continues it.

    Args:
        *words: settings as typed, ``"model=mlp", "sparsity=0.9"``.
        config_dir: a folder of your own options, or several.

    Returns:
        The record, as in ``record.json`` (``docs/record.md``).

    Raises:
        ConfigError: the settings cannot be run.
        RunError: the run failed or diverged, or another process is training it.
        KeyboardInterrupt: a signal has stopped the run; it is saved.
    """
    silence_allocator()
    experiment = composed(words, config_dir)
    with _torch_settings_kept():
        from dstrun.run.lifecycle import run

        outcome = run(experiment)
    return _record(outcome)


def composed(
    words: Sequence[str], config_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()
) -> Experiment:
    """Compose and check one run's settings, as typed.

    Raises:
        ConfigError: said in one sentence.
    """
    folders = [config_dir] if isinstance(config_dir, str | os.PathLike) else config_dir
    directories = own.folders([os.fspath(folder) for folder in folders])
    for word in words:
        if word.startswith("-"):
            raise ConfigError(f"{word} is for the command line: from Python, each call trains one run")
    check_kinds(words)
    overrides = read(list(words))
    if lists := [o.input_line for o in parse(overrides) if o.is_sweep_override()]:
        raise ConfigError(f"{lists[0]} lists several values: from Python, each call trains one run")
    check_single(overrides)
    experiment = compose(overrides, directories)
    if experiment.config["distributed"]:
        raise ConfigError(f"distributed={experiment.config['distributed']} is for the command line, under torchrun")
    return experiment


def _record(outcome: Outcome) -> dict[str, Any]:
    path = outcome.folder.path
    if outcome.state == "done":
        return valid.read(path / "record.json")
    if outcome.state == "interrupted":
        raise KeyboardInterrupt(f"{outcome.folder.id}: {outcome.message}; the same call continues it")
    raise RunError(f"{path} {outcome.state}: {outcome.message}", outcome.state, str(path))


@contextmanager
def _torch_settings_kept() -> Iterator[None]:
    """Set PyTorch back to what it was: random numbers, threads, stream, precision of products, determinism."""
    import torch

    threads, random = torch.get_num_threads(), torch.get_rng_state()
    on_gpu = _gpu_settings_kept() if torch.cuda.is_available() else nullcontext()
    try:
        with on_gpu:
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(random)


@contextmanager
def _gpu_settings_kept() -> Iterator[None]:
    import torch

    cudnn: Any = torch.backends.cudnn
    products: Any = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    deterministic: Any = torch.utils.deterministic
    stream, random = torch.cuda.current_stream(), torch.cuda.get_rng_state_all()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, filled = cudnn.benchmark, deterministic.fill_uninitialized_memory
    precisions = [what.fp32_precision for what in products]
    try:
        yield
    finally:
        torch.cuda.set_stream(stream)
        torch.cuda.set_rng_state_all(random)
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        cudnn.benchmark, deterministic.fill_uninitialized_memory = benchmark, filled
        for what, precision in zip(products, precisions, strict=True):
            what.fp32_precision = precision
