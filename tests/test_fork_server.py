"""Processes that are forked for tests are as those that ``subprocess`` starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fork_server
import pytest
from small_run import SMALL

SCRIPT = """
import atexit, json, os, sys
atexit.register(lambda: print("at the end"))
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path, "name": __name__, "main": sys.modules["__main__"].__file__,
    "mine": os.environ.get("MINE"), "home": os.environ.get("HOME"), "in": sys.stdin.read(),
    "session": os.getsid(0) == os.getpid(),
}))
print("to the other", file=sys.stderr)
what = sys.argv[1]
if what == "raise":
    raise RuntimeError("as asked")
if what == "ctrl-c":
    raise KeyboardInterrupt
sys.exit({"number": 7, "words": "words", "none": None}[what])
"""


@pytest.mark.parametrize("what", ["number", "words", "none", "raise", "ctrl-c"])
def test_it_is_what_a_fresh_process_is(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, folder, paths, environment, input, output, exit code; as a script and as a module."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "program.py").write_text(SCRIPT)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "MINE": "yes", "PYTHONPATH": paths}
    del environment["HOME"]
    for command in (["-m", "program", what, "b c"], [str(tmp_path / "here" / "program.py"), what]):
        said = []
        for run in (subprocess.run, fork_server.run):
            with open(__file__) as file:
                done = run(
                    [sys.executable, *command], cwd=tmp_path / "here", env=environment, stdin=file, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            seen = json.loads(done.stdout.splitlines()[0])
            seen["path"] = [path for path in seen["path"] if path]
            said.append((seen, done.stdout.splitlines()[1:], done.stderr.splitlines()[0], done.stderr[-30:],
                         done.returncode))  # fmt: skip
        assert said[0] == said[1]


def test_it_has_the_process_id_that_is_told_and_gets_signals(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)")
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        process = fork_server.Process(
            [sys.executable, str(tmp_path / "waits.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(number)
        process.communicate()
        assert process.returncode == -number


def test_one_process_and_the_next_differ_in_what_hangs_on_chance(tmp_path: Path) -> None:
    (tmp_path / "chance.py").write_text(
        "import numpy as np, random\nprint(hash('x'), random.random(), np.random.rand())"
    )
    said = [
        fork_server.run([sys.executable, str(tmp_path / "chance.py")], capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert all(a != b for a, b in zip(*said, strict=True))


def test_what_it_trains_is_the_same_bit_for_bit(dstrun, tmp_path: Path) -> None:
    kept = []
    for fresh in (True, False):
        done = dstrun(
            *SMALL, "model=resnet20", "epochs=1", "method=gse", "subset=grabo", f"results={fresh}", fresh=fresh
        )
        (record,) = tmp_path.glob(f"{fresh}/default/*/record.json")
        found = json.loads(record.read_text())
        kept.append([found[key] for key in ("accuracy", "parameters", "flops", "updates", "id")])
        rows = (record.parent / "metrics.csv").read_text().splitlines()
        kept[-1] += [row.split(",")[:7] for row in rows] + [(record.parent / "topology.csv").read_text()]
        assert "Traceback" not in done.stderr
    assert kept[0] == kept[1]


WORKER = """
import json, os, signal, sys
import fork_server
fork_server.SERVERS.join(**json.loads(sys.argv[1]))
for _ in range(2):
    fork_server.run([sys.executable, sys.argv[2]], check=True)
process = fork_server.Process([sys.executable, sys.argv[2], "waits"])
os.kill(os.getpid(), signal.SIGKILL)
"""
PARENT = """
import os, sys
print(os.getppid(), flush=True)
if sys.argv[1:]:
    sys.stdin.read()
    print("goes on", flush=True)
"""


def test_a_worker_that_is_killed_ends_no_server_and_no_process(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(PARENT)

    def servers() -> set[str]:
        return {fork_server.run([sys.executable, str(parent)], capture_output=True, text=True).stdout for _ in range(2)}

    mine = servers()
    given = json.dumps(fork_server.SERVERS.start(dict(os.environ)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, given, str(parent)], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:  # fmt: skip
        assert worker.wait(30) == -signal.SIGKILL
        said, _ = worker.communicate()
    *pids, last = said.splitlines()
    assert last == "goes on"
    assert {f"{pid}\n" for pid in pids} == mine == servers()
    assert len(mine) == 2


def test_servers_end_with_the_session() -> None:
    for end in ("", "os.kill(os.getpid(), signal.SIGKILL)"):
        code = f"""
import os, signal
import fork_server
one, other = (fork_server.Server(dict(os.environ), f"session-{{os.getpid()}}-{{n}}") for n in range(2))
print(one.process.pid, other.process.pid, flush=True)
{end}
"""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        assert done.returncode == (-signal.SIGKILL if end else 0)
        deadline = time.monotonic() + 10
        for pid in done.stdout.split():
            while alive(int(pid)):
                assert time.monotonic() < deadline
                time.sleep(0.01)


def alive(pid: int) -> bool:
    """Return whether a process runs: it may have ended with nobody to wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ENDS = """
import os, signal, sys, time
what = sys.argv[1]
if what == "hears":
    for name in ("SIGUSR2", "SIGTERM", "SIGCONT"):
        said = f"{name}\\n".encode()
        signal.signal(getattr(signal, name), lambda *_, said=said: os.write(1, said))
ready, tell = os.pipe()
if what in ("number", "dies"):
    print("begins", os.getpid())
elif os.fork():
    os.read(ready, 1)  # Python forgets signals that reach a child before it is all there
    print("begins", os.getpid())
else:
    os.write(tell, b".")
if what == "number":
    os.write(1, b"between\\n")
    print("ends")
    sys.exit(7)
if what == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
for _ in range(5000):
    time.sleep(0.02)  # a handler runs between two
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of those who are no children of the tests."""
    return str(fork_server.client(tmp_path_factory.mktemp("client")))


@contextmanager
def begun(python: str, folder: Path, what: str) -> Iterator[tuple[subprocess.Popen[str], int, IO[str]]]:
    """Start the script above as SLURM does: gives it, the process id that it prints, and what it prints after that."""
    (folder / "ends.py").write_text(ENDS)
    command = [python, "-u", "-m", "ends", what]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().removeprefix("begins ")), process.stdout


def test_a_client_gives_it_all_that_a_process_is_given(client: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT + "\nassert 0")
    said = []
    for python in (sys.executable, client):
        done = subprocess.run(
            [python, "-m", "program", "number", "b c"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
            input="words", text=True, capture_output=True,
        )  # fmt: skip
        seen = json.loads(done.stdout.splitlines()[0])
        seen["path"] = [path for path in seen["path"] if path]
        said.append((seen, done.stdout.splitlines()[1:], done.stderr, done.returncode))
    assert said[0] == said[1]
    assert said[0][3] == 7


def test_a_client_ends_as_its_process_does(client: str, tmp_path: Path) -> None:
    with begun(client, tmp_path, "number") as (process, _, said):
        assert said.read() == "between\nends\n"  # -u
        assert process.wait(10) == 7
    with begun(client, tmp_path, "dies") as (process, _, _):
        assert process.wait(10) == -signal.SIGKILL
    with begun(client, tmp_path, "sleeps") as (process, pid, _):
        assert pid != process.pid
        os.killpg(pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL


def test_a_client_hands_signals_on(client: str, tmp_path: Path) -> None:
    with begun(client, tmp_path, "hears") as (process, _, said):
        for name in ("SIGUSR2", "SIGTERM", "SIGCONT"):
            process.send_signal(getattr(signal, name))
            assert [said.readline() for _ in range(2)] == [f"{name}\n"] * 2  # the process and its child
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        with begun(client, tmp_path, "sleeps") as (process, _, _):
            process.send_signal(number)
            assert process.wait(10) == -number


def test_a_client_that_is_killed_takes_its_process_with_it(client: str, tmp_path: Path) -> None:
    with begun(client, tmp_path, "sleeps") as (process, pid, said):
        assert Path(f"/proc/{pid}").exists()
        process.kill()
        assert said.read() == ""  # closed: neither the process nor its child has it any more
        assert process.wait(10) == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
