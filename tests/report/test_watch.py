from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write, write_status, write_sweep

from dstrun.report import status, watch

RUNNING = {"epoch": 3, "epochs": 10, "top1": 50.1, "eta_seconds": 80.0, "epoch_seconds": 12.0, "peak_bytes": 64e6}
NAME = "resnet56-cifar10-gse-s0.98-seed{}-3f9c2a1b"
HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l"


def many(root: Path, **counts: int) -> list[dict[str, Any]]:
    """Leave so many runs of each state and describe them, by state."""
    seed = 0
    for state, count in counts.items():
        for _ in range(count):
            seed += 1
            name = f"default/{NAME.format(seed)}"
            if state == "done":
                write(root, record_of("gse", 0.98, seed, 87.5), folder=NAME.format(seed))
            else:
                message = "out of memory" if state == "failed" else None
                write_status(root, name, state, heartbeat=1000.0, host="node7", job="12_3", message=message, **RUNNING)
    return status.chooser(None, "state")(status.Sweep([root / "default"]).rows(1010.0))


def replace_status(run: Path, status: dict[str, Any]) -> None:
    (run / "new").write_text(json.dumps(status))
    (run / "new").rename(run / "status.json")


def frame(rows: Sequence[dict[str, Any]], width: int, height: int | None = None) -> list[str]:
    return [line.plain.rstrip() for line in watch.frame(rows, status.totals(rows), width, height)]


def test_all_fits_on_a_wide_terminal(tmp_path: Path) -> None:
    rows = many(tmp_path, running=1, failed=1, done=1)
    assert frame(rows, 140) == [
        "3 runs: 1 done, 1 running, 1 failed; 1m 20s left",
        "run                                        state    epoch   top-1     ETA  per epoch     peak  host   job",
        "resnet56-cifar10-gse-s0.98-seed1-3f9c2a1b  running   3/10  50.10%  1m 20s     12.0 s  64.0 MB  node7  12_3",
        "resnet56-cifar10-gse-s0.98-seed2-3f9c2a1b  failed    3/10  50.10%       -     12.0 s  64.0 MB  node7  12_3",
        "  out of memory",
        "resnet56-cifar10-gse-s0.98-seed3-3f9c2a1b  done     30/30  87.50%       -     31.7 s  63.1 MB  node1  -",
    ]  # fmt: skip


def test_eighty_columns_shorten_names_by_what_all_share_and_drop_columns(tmp_path: Path) -> None:
    rows = many(tmp_path, running=1, failed=1, done=1)
    beginning = rows[0]["run"].partition("seed")[0]
    assert frame(rows, 80) == [
        "3 runs: 1 done, 1 running, 1 failed; 1m 20s left; names without",
        beginning,
        "run             state    epoch   top-1     ETA  per epoch     peak  host   job",
        "seed1-3f9c2a1b  running   3/10  50.10%  1m 20s     12.0 s  64.0 MB  node7  12_3",
        "seed2-3f9c2a1b  failed    3/10  50.10%       -     12.0 s  64.0 MB  node7  12_3",
        "  out of memory",
        "seed3-3f9c2a1b  done     30/30  87.50%       -     31.7 s  63.1 MB  node1  -",
    ]
    assert frame(rows, 60)[2:4] == [
        "run             state    epoch   top-1     ETA  per epoch",
        "seed1-3f9c2a1b  running   3/10  50.10%  1m 20s     12.0 s",
    ]
    assert frame(rows, 60, 6)[0] == "3 runs: 1 done, 1 running, 1 failed; 1m 20s left"  # no room for the beginning


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 8), (40, 10), (20, 12), (200, 60)])
def test_never_wider_or_higher_than_the_terminal(width: int, height: int, tmp_path: Path) -> None:
    rows = many(tmp_path, running=12, failed=9, interrupted=3, done=40)
    lines = frame(rows, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1] == "... and 16 more done" if height == 60 else lines[-1].startswith("... and ")


def test_running_first_then_trouble_then_the_latest_done(tmp_path: Path) -> None:
    rows = many(tmp_path, done=20, failed=2, running=3)
    lines = frame(rows, 80, 13)
    assert [line.split()[1] for line in lines[2:5]] == ["running"] * 3
    assert [line.split()[1] for line in lines[5:9:2]] == ["failed"] * 2
    assert [line.split()[1] for line in lines[9:12]] == ["done"] * 3
    assert lines[12] == "... and 17 more done"


def test_trouble_takes_half_of_the_room_at_most_and_so_does_not_hide_what_runs(tmp_path: Path) -> None:
    rows = many(tmp_path, failed=30, running=30)
    states = [line.split()[1] for line in frame(rows, 80, 23)[2:-1] if not line.startswith("  ")]
    assert states == ["running"] * 10 + ["failed"] * 5
    assert frame(rows, 80, 23)[-1] == "... and 20 more running, 25 failed"


def test_a_narrow_terminal_says_the_count_alone(tmp_path: Path) -> None:
    rows = many(tmp_path, running=9, failed=9, interrupted=9, done=9)
    assert frame(rows, 40, 9)[-1] == "... and 32 more"


def test_a_terminal_of_no_use_breaks_nothing(tmp_path: Path) -> None:
    assert frame(many(tmp_path, failed=5), 3, 1)
    assert frame([], 80, 24) == ["0 runs", "run  state  epoch  top-1  ETA  per epoch  peak  host  job"]


def piped(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    watch.watch(status.Sweep([root]), status.chooser(None, "state"), 5.0)
    return capsys.readouterr().out


def test_piped_one_plain_block_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_status(tmp_path, "default/a", "running", heartbeat=time.time(), **RUNNING)
    now = time.time()
    later: list[dict[str, Any]] = [
        {"state": "running", **RUNNING, "heartbeat": now + 1},
        {"state": "running", **RUNNING, "heartbeat": now + 2, "epoch": 4},
        {"state": "failed", **RUNNING, "message": "out of memory"},
    ]
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        replace_status(run, later.pop(0))

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(time, "sleep", sleep)
    text = piped(tmp_path, capsys)
    assert waited == [5.0] * 3
    assert "\x1b" not in text
    blocks = text.strip().split("\n\n")
    assert [block.splitlines()[2].split()[1:3] for block in blocks] == [
        ["running", "3/10"],
        ["running", "4/10"],
        ["failed", "3/10"],
    ]
    assert blocks[-1].splitlines()[3] == "  out of memory"


def test_watching_what_is_over_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, record_of("gse", 0.98, 0, 87.5), folder="a")
    write_status(tmp_path, "default/b", "interrupted", job="12")
    write_sweep(tmp_path / "default", {"a": "12", "b": "12", "c": "12"}, ended=1.0)
    assert piped(tmp_path, capsys).startswith("3 runs: 1 done, 1 interrupted, 1 not started\n")


class Terminal:
    """The command line on a terminal of its own."""

    def __init__(self, words: Sequence[str], columns: int, lines: int, **env: str) -> None:
        ready, go = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.read(ready, 1)
            # Not execv: readline, where something has loaded it, hides LINES and COLUMNS in what that hands on.
            kept = {key: value for key, value in os.environ.items() if key not in ("LINES", "COLUMNS", "NO_COLOR")}
            command = [sys.executable, "-m", "dstrun", *words]
            os.execve(sys.executable, command, {**kept, "TERM": "xterm-256color", **env})
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.fd)
        os.write(go, b"x")
        os.close(ready)
        os.close(go)
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> bool:
        if not select.select([self.fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert self.read(), self.seen
            assert time.monotonic() < deadline, self.seen

    def end(self) -> int:
        """Read all there is; give the exit code, the terminal being as it was."""
        while self.read():
            pass
        self.after = termios.tcgetattr(self.fd)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for i in range(60):
        write_status(tmp_path, f"default/{NAME.format(i)}", "running", heartbeat=time.time(), host="h", **RUNNING)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("leave", "code"),
    [
        (lambda terminal: os.write(terminal.fd, b"xq"), 0),
        (lambda terminal: os.write(terminal.fd, b"\x03"), 130),
        (lambda terminal: os.kill(terminal.pid, signal.SIGTERM), 143),
    ],
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_leaving_restores_the_terminal(leave, code: int, sweep: Path) -> None:
    terminal = Terminal(["status", "--watch", str(sweep)], 80, 24)
    terminal.until(b"more running")
    assert b"q quits" in terminal.seen
    assert HIDE in terminal.seen
    assert b"\x1b[36m" in terminal.seen
    leave(terminal)
    assert terminal.end() == code
    assert SHOW in terminal.seen
    assert terminal.seen.rfind(b"\x1b[?25h") > terminal.seen.rfind(b"\x1b[?25l")
    assert terminal.after == terminal.before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_resizing_draws_anew_and_no_color_is_honoured(sweep: Path) -> None:
    terminal = Terminal(["status", "--watch", "--interval", "100", str(sweep)], 80, 24, NO_COLOR="1")
    terminal.until(b"and 39 more running")
    terminal.resize(100, 14)
    terminal.until(b"and 49 more running")
    os.write(terminal.fd, b"q")
    assert terminal.end() == 0
    assert b"\x1b[36m" not in terminal.seen


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_end_of_the_sweep_stays_on_the_terminal(sweep: Path) -> None:
    terminal = Terminal(["status", "--watch", "--interval", "0.2", str(sweep)], 80, 24)
    terminal.until(b"more running")
    for run in (sweep / "default").iterdir():
        replace_status(run, {"state": "failed", "message": "out of memory"})
    assert terminal.end() == 0
    left = terminal.seen[terminal.seen.rfind(SHOW) :]
    assert b"60 runs: 60 failed" in left
    assert b"and 50 more failed" in left


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_status_alone_is_as_wide_as_the_terminal_and_complete(sweep: Path) -> None:
    terminal = Terminal(["status", str(sweep)], 60, 24)
    assert terminal.end() == 0
    lines = terminal.seen.decode().replace("\r", "").splitlines()
    assert HIDE not in terminal.seen
    rows = [line for line in lines if "running\x1b" in line]
    assert len(rows) == 60
    assert "epoch time" in lines[1]
    assert "| run" not in lines[1]
    assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines) <= 60
    assert re.sub(r"\x1b\[\d+m", "", lines[0]).startswith("default/")
