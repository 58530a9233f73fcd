"""Processes that are forked for tests are as those that ``subprocess`` starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

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
