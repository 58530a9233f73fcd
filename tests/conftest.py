"""What every test may ask for."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fork_server
import pytest

from dstrun.cli.verb import VERBS

ROOT = Path(__file__).parents[1]
SLOWEST = (
    "launcher/test_slurm.py", "test_sweeps.py", "train/test_resume.py", "train/test_distributed.py",
    "method/test_every_method.py", "backend/test_equality.py", "torture/test_torture.py", "train/test_golden.py",
)  # fmt: skip
"""Files of which a worker has most to do."""
LIGHT = {*VERBS} - {"bench", "eval", "export", "plan", "weights"}
"""Verbs that need no PyTorch."""
REAL_IMAGES = ROOT.parent / "shared" / "data" / "cifar10"

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it; tests close the terminal


def has_slurm() -> bool:
    """Return whether the daemons are here, and may be started."""
    return os.geteuid() == 0 and all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch")))


def find_chromium() -> str | None:
    """Find Chromium or Chrome, which tests drive by playwright."""
    names = ("chromium", "chromium-browser", "google-chrome") if find_spec("playwright") else ()
    return next(filter(None, map(shutil.which, names)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are processors: tests of SLURM, which take one worker minutes, wait for daemons."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the servers that fork processes, which all workers share: they import PyTorch when they are first asked."""
    given = {"OMP_NUM_THREADS": "1", **os.environ}
    node.workerinput["fork_servers"] = fork_server.SERVERS.start(given)


def pytest_configure(config: pytest.Config) -> None:
    """In a worker, use the servers of its session."""
    if found := getattr(config, "workerinput", {}).get("fork_servers"):
        fork_server.SERVERS.join(**found)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, and leave what has been imported out of every later search."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 20)  # PyTorch is imported later: what it leaves is searched less often


def pytest_unconfigure() -> None:
    """Release everything at the end, as libraries expect; pytest, which searches five times, finds nothing more."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine has not got; put the slowest files first, so that no worker is left alone with one."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    needs = {"gpu": lambda: __import__("torch").cuda.is_available(), "slurm": has_slurm, "browser": find_chromium}
    for name, here in needs.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and not here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"this machine has no {name}"))


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of the real CIFAR-10 images, where the checkout has one beside it."""
    if not REAL_IMAGES.is_dir():
        pytest.skip("no real CIFAR-10 images at ../shared/data/cifar10")
    return REAL_IMAGES


@pytest.fixture(scope="module")
def outlined_once() -> Iterator[None]:
    """Look at a pass through each network once: the runs of a file that trains a few networks often get copies."""
    from dstrun.run.blueprint import Blueprint

    seen: dict[tuple[object, ...], object] = {}
    usual = Blueprint.outline

    def outline(self, option):
        key = (type(option), repr(option), self.dataset.image, self.dataset.classes)
        if key not in seen:
            seen[key] = usual(self, option)
        return copy.deepcopy(seen[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blueprint, "outline", outline)
        yield


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """Where the browser is, for tests marked so."""
    return find_chromium()


@pytest.fixture
def dstrun(tmp_path: Path):
    """Run the command line in a process of its own, in an empty folder: returns the finished process.

    Those that need PyTorch are forked, unless ``fresh``; other verbs start as a user starts them.
    """

    def run(
        *words: str, check: bool = True, env: dict[str, str] | None = None, fresh: bool = False, **options
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dstrun", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        start = subprocess.run if fresh or words[0] in LIGHT else fork_server.run
        done = start(
            command, cwd=options.pop("cwd", tmp_path), env=environment, capture_output=True, text=True, **options
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Be a user who has never logged in to W&B, behind no proxy."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    os.environ.pop("WANDB_SERVICE", None)  # wandb's process, which processes of other tests are not to use
