"""What the tests of launchers share: sweeps as a user starts them, and a SLURM of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from faulty import YAML
from slurm_lab import Lab

PATIENCE_SECONDS = 100


class Folder:
    """A folder in which sweeps run; the environment has the options of ``faulty``."""

    def __init__(self, path: Path, environment: dict[str, str] | None = None) -> None:
        self.path = path
        (path / "options" / "model").mkdir(parents=True)
        (path / "options" / "model" / "faulty.yaml").write_text(YAML)
        here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here, **(environment or {})}
        self.clients: list[subprocess.Popen[bytes]] = []
        self.said: dict[int, Path] = {}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a sweep."""
        command = [sys.executable, "-m", "dstrun", "--config-dir", "options", "-m", *words]
        said = self.path / f"client-{len(self.clients)}.txt"
        with open(said, "w") as file:  # not a pipe, which what a killed client leaves behind would keep open
            client = fork_server.Process(command, cwd=self.path, env=self.environment, stdout=file, stderr=file)
        self.clients.append(client)
        self.said[client.pid] = said
        return client

    def end(self, client: subprocess.Popen[bytes]) -> str:
        """Wait for a sweep; gives what it said."""
        client.wait(PATIENCE_SECONDS)
        output = self.said[client.pid].read_text()
        assert "Traceback" not in output.replace("| Traceback", ""), output
        return output

    def sweep(self, *words: str, code: int = 0) -> str:
        """Run a sweep to its end; gives what it said."""
        client = self.start(*words)
        output = self.end(client)
        assert client.returncode == code, output
        return output

    def runs(self) -> list[dict[str, Any]]:
        """Return the status of every run that has one, and its folder."""
        files = sorted(self.path.glob("results/*/*/status.json"))
        return [json.loads(file.read_text()) | {"folder": file.parent} for file in files]

    def states(self) -> list[str]:
        """Return the states of runs, sorted."""
        return sorted(run["state"] for run in self.runs())

    def at_work(self, experiment: str = "") -> list[dict[str, Any]]:
        """Return the runs, of an experiment or of all, that train and have done an epoch."""
        runs = [run for run in self.runs() if run["state"] == "running" and run.get("epoch", 0) > 0]
        return [run for run in runs if experiment in ("", run["folder"].parent.name)]

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something holds, and give it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, self.runs()
            time.sleep(0.05)
        return found

    def close(self) -> None:
        """Kill what still runs here."""
        for client in self.clients:
            client.kill()
            client.wait()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                mine = (process / "cwd").resolve() == self.path and int(process.name) != os.getpid()
                if mine and b"python" in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A folder for sweeps on this machine."""
    made = Folder(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder for what several tests of a file compare with."""
    made = Folder(tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A SLURM that runs as long as the tests do. Its jobs are forked from a process that has imported PyTorch."""
    root = Path(tempfile.mkdtemp(prefix="dstrun-slurm-"))  # short: a socket's path has at most 107 letters
    made = Lab(root)
    made.environment[fork_server.CLIENT] = str(fork_server.client(root))  # by which jobs are started
    made.start()
    yield made
    made.stop()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path) -> Iterator[Folder]:
    """A folder for sweeps whose jobs SLURM runs."""
    made = Folder(tmp_path, lab.environment)
    yield made
    lab.ask("scancel", "--user=root")
    made.close()
