from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write, write_status, write_sweep

from dstrun.record import sealed
from dstrun.record.valid import SILENT_SECONDS
from dstrun.report import status
from dstrun.report.format import render
from dstrun.system.process import started
from dstrun.system.trouble import ConfigError

RUNNING = {"epoch": 3, "epochs": 10, "top1": 50.1, "eta_seconds": 80.0, "epoch_seconds": 12.0, "peak_bytes": 64e6}


def rows_of(folder: Path, now: float = 1010.0) -> list[dict[str, Any]]:
    return status.Sweep([folder]).rows(now)


def states_of(folder: Path, now: float = 1010.0) -> dict[str, str]:
    return {row["run"]: row["state"] for row in rows_of(folder, now)}


def test_a_folder_that_cannot_be_read_is_not_a_run_that_has_not_started(tmp_path: Path, monkeypatch) -> None:
    write_sweep(tmp_path / "default", {"a": None, "b": None}, ended=901.0)
    (tmp_path / "default" / "a").mkdir()
    (tmp_path / "default" / "b").mkdir()
    readable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("/a") and readable(path, mode))
    assert states_of(tmp_path) == {"default/a": "damaged", "default/b": "not started"}


def test_rows_tell_each_run_apart(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    write_status(tmp_path, "default/b", "running", heartbeat=1000.0, host="h", job="12_0", **RUNNING)
    write_status(tmp_path, "default/c", "running", host="h", **RUNNING)
    write_status(tmp_path, "default/d", "failed", message="loss is nan")
    (tmp_path / "default" / "e").mkdir()
    (tmp_path / "default" / "e" / "status.json").write_text("{")
    rows = rows_of(tmp_path / "default")
    assert render(rows[:4], status.COLUMNS, "md") == "\n".join(
        [
            "| run | state   | epoch |  top-1 |    ETA | epoch time | peak memory | host  | job  | message          |",
            "| --- | ------- | ----: | -----: | -----: | ---------: | ----------: | ----- | ---- | ---------------- |",
            "| a   | done    | 30/30 | 90.10% |      - |     31.7 s |     60.1 MB | node1 | -    | -                |",
            "| b   | running |  3/10 | 50.10% | 1m 20s |     12.0 s |     64.0 MB | h     | 12_0 | -                |",
            "| c   | lost    |  3/10 | 50.10% |      - |     12.0 s |     64.0 MB | h     | -    | no heartbeat yet |",
            "| d   | failed  |     - |      - |      - |          - |           - | -     | -    | loss is nan      |",
        ]
    )
    assert rows[4]["state"] == "damaged"
    assert "status.json is damaged" in rows[4]["message"]
    assert status.totals(rows) == "5 runs: 1 done, 1 running, 1 lost, 1 failed, 1 damaged; 1m 20s left"


def test_one_run_has_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    rows = rows_of(folder)
    assert [row["run"] for row in rows] == ["a"]
    assert status.totals(rows) == "1 run: 1 done"


def test_totals_of_nothing() -> None:
    assert status.totals([]) == "0 runs"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        rows_of(tmp_path / "nowhere")


def test_a_stale_heartbeat_is_lost_and_says_since_when(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "running", heartbeat=1000.0, host="elsewhere", pid=1)
    assert states_of(tmp_path, 1000.0 + SILENT_SECONDS) == {"a": "running"}
    (row,) = rows_of(tmp_path, 1001.0 + SILENT_SECONDS)
    assert row["state"] == "lost"
    assert row["message"].startswith("no heartbeat since 19")


def test_a_process_that_has_gone_from_this_machine_is_lost_at_once(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    write_status(tmp_path, "alive", "running", heartbeat=1000.0, host=here, pid=os.getpid())
    write_status(tmp_path, "elsewhere", "running", heartbeat=1000.0, host=f"not-{here}", pid=ended.pid)
    write_status(tmp_path, "gone", "running", heartbeat=1000.0, host=here, pid=ended.pid)
    write_status(tmp_path, "odd", "running", heartbeat=1000.0, host=here, pid="x")
    assert states_of(tmp_path) == {"alive": "running", "elsewhere": "running", "gone": "lost", "odd": "running"}
    assert rows_of(tmp_path / "gone")[0]["message"] == f"process {ended.pid} has ended without a final status"


def test_a_preempted_run_is_interrupted_however_long_ago(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "interrupted", heartbeat=0.0, host=socket.gethostname(), pid=2**22, job="12_0")
    assert states_of(tmp_path, 1e9) == {"a": "interrupted"}


def test_runs_of_a_sweep_that_have_left_nothing_are_queued_until_it_ends(tmp_path: Path) -> None:
    write_status(tmp_path, "exp/a", "running", heartbeat=1000.0, host="h")
    write_sweep(tmp_path / "exp", {"a": "7_0", "b": "7_1"})
    (tmp_path / "exp" / "b").mkdir()
    for folder, prefix in ((tmp_path, "exp/"), (tmp_path / "exp", "")):
        rows = rows_of(folder)
        assert [(row["run"], row["state"], row["job"]) for row in rows] == [
            (f"{prefix}a", "running", None),
            (f"{prefix}b", "queued", "7_1"),
        ]
    write_sweep(tmp_path / "exp", {"a": "7_0", "b": "7_1"}, ended=1005.0)
    assert states_of(tmp_path) == {"exp/a": "running", "exp/b": "not started"}


def test_the_sweep_that_goes_on_is_believed(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"a": "7", "b": "7"}, name="1")
    write_sweep(tmp_path, {"a": "8", "c": "8"}, name="2", ended=1005.0)
    rows = {row["run"]: (row["state"], row["job"]) for row in rows_of(tmp_path)}
    assert rows == {"a": ("queued", "7"), "b": ("queued", "7"), "c": ("not started", "8")}


def test_a_killed_local_client_starts_nothing_more(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    client = {"host": socket.gethostname(), "pid": ended.pid}
    write_sweep(tmp_path, {"a": None}, launcher="local", **client)
    assert states_of(tmp_path) == {"a": "not started"}


@pytest.mark.parametrize(
    ("coming", "beaten", "state"),
    [(None, 0, "queued"), ({"7_0"}, 0, "queued"), (set(), 0, "not started"), (None, 90000, "not started")],
)
def test_jobs_of_a_killed_client_are_asked_for(
    coming: set[str] | None, beaten: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody can ask for is given up after a day, or ``--watch`` would never end."""
    monkeypatch.setattr("dstrun.launcher.queue.coming", lambda jobs: coming)
    file = write_sweep(tmp_path, {"a": "7_0", "b": None}, launcher="slurm", host="elsewhere", beats=True)
    os.utime(file, (0, 0))
    (row, other) = rows_of(tmp_path, 2 * SILENT_SECONDS + beaten)
    assert (row["state"], row["awaited"]) == (state, state == "queued")
    assert not other["awaited"]


def test_a_client_elsewhere_lives_as_long_as_it_beats(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, {"a": None}, launcher="local", host="elsewhere", beats=True)
    os.utime(file, (1000, 1000))
    assert states_of(tmp_path, 1100.0) == {"a": "queued"}
    assert states_of(tmp_path, 1001.0 + SILENT_SECONDS) == {"a": "not started"}


def test_a_heartbeat_of_a_time_to_come_is_none(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "running", heartbeat=90000.0, host="elsewhere", pid=1)
    assert states_of(tmp_path) == {"a": "lost"}


def test_the_clock_of_the_files_decides_not_that_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node ten minutes behind trains; a machine of which the clock runs ahead sees its runs train."""
    folder = write_status(tmp_path, "a", "running", heartbeat=1000.0, host="elsewhere", pid=1)
    os.utime(folder / "status.json", (1600, 1600))
    assert states_of(tmp_path, 1605.0) == {"a": "running"}
    monkeypatch.setattr(status, "ahead", lambda folder: -600.0)
    assert states_of(tmp_path, 2205.0) == {"a": "running"}
    assert states_of(tmp_path, 2205.0 + SILENT_SECONDS) == {"a": "lost"}


def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    here = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": 1000.0}
    write_status(tmp_path, "a", "running", **here, process_started=started(os.getpid()))
    write_status(tmp_path, "b", "running", **here, process_started=1)
    write_sweep(tmp_path, {"c": None}, launcher="local", host=here["host"], pid=here["pid"], process_started=1)
    assert states_of(tmp_path) == {"a": "running", "b": "lost", "c": "not started"}


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": 1}', '{"runs": [1, {"id": 2}, {}]}'])
def test_of_a_damaged_note_no_run_is_awaited(text: str, tmp_path: Path) -> None:
    write_status(tmp_path, "a", "done")
    write_sweep(tmp_path, {}, name="1").write_text(text)
    write_sweep(tmp_path, {"b": None}, name="2")
    assert states_of(tmp_path) == {"a": "damaged", "b": "queued"}


def test_what_a_sweep_will_start_again_is_awaited(tmp_path: Path) -> None:
    for run in ("a", "b"):
        write_status(tmp_path, run, "interrupted", job="7")
    write_sweep(tmp_path, {"a": "7"})
    assert {row["run"]: row["awaited"] for row in rows_of(tmp_path)} == {"a": True, "b": False}


def test_time_left_is_shared_by_the_runs_that_train(tmp_path: Path) -> None:
    for run in ("a", "b"):
        write_status(tmp_path, run, "running", heartbeat=1000.0, **RUNNING | {"eta_seconds": 60.0})
    assert status.left(rows_of(tmp_path)) == 60
    # A queued one takes 120 s as the others do, one that is continued the seven epochs it lacks.
    write_sweep(tmp_path, {"c": None, "d": None})
    write_status(tmp_path, "d", "interrupted", **RUNNING)
    assert status.left(rows_of(tmp_path)) == (60 + 60 + 120 + 7 * 12) / 2
    # The slowest run is not sped up by the others' end.
    write_status(tmp_path, "e", "running", heartbeat=1000.0, **RUNNING | {"eta_seconds": 1e4})
    assert status.left(rows_of(tmp_path)) == 1e4


def test_nobody_knows_the_time_left_of_runs_without_an_epoch(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "running", heartbeat=1000.0, epoch=0, epochs=10)
    assert status.left(rows_of(tmp_path)) is None


def test_choosing_and_sorting(tmp_path: Path) -> None:
    for run, state, top1 in (("a", "failed", None), ("b", "interrupted", 70.0), ("c", "failed", 80.0)):
        write_status(tmp_path, run, state, top1=top1)
    write(tmp_path, record_of("set", 0.9, 0, 90.0, experiment="."), folder="d")
    rows = rows_of(tmp_path)

    def chosen(states: str | None, sort: str) -> str:
        return "".join(row["run"] for row in status.chooser(states, sort)(rows))

    assert chosen(None, "run") == "abcd"
    assert chosen("failed,done", "run") == "acd"
    assert chosen(None, "top1") == "dcba"
    assert chosen(None, "state") == "acbd"
    with pytest.raises(ConfigError, match=r"--state runing is not known: .*did you mean running\?"):
        status.chooser("failed,runing", "run")


def test_a_done_run_is_told_without_its_record(tmp_path: Path) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    (folder / "record.json").write_text("not read")
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["top1"], row["epoch"], row["host"]) == ("done", 90.1, 30, "node1")
    (folder / "record.json").unlink()
    assert states_of(tmp_path) == {"default/a": "damaged"}


def test_a_record_counts_whatever_the_status_says(tmp_path: Path) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    (folder / "status.json").write_text(json.dumps({"id": "a", "state": "running", "heartbeat": 0.0}))
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["top1"]) == ("done", 90.1)
    (folder / "status.json").unlink()
    assert states_of(tmp_path) == {"default/a": "done"}


def test_looking_again_reads_what_has_changed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.1, experiment="."), folder="a")
    write_status(tmp_path, "b", "running", heartbeat=1000.0, host="h", **RUNNING)
    write_status(tmp_path, "c", "running", heartbeat=1000.0, host="h", **RUNNING)
    write_sweep(tmp_path, {"d": None})
    opened: list[str] = []
    read = sealed.read
    monkeypatch.setattr(sealed, "read", lambda file: opened.append(str(Path(file).parent.name)) or read(file))
    sweep = status.Sweep([tmp_path])
    assert [row["state"] for row in sweep.rows(1010.0)] == ["done", "running", "running", "queued"]
    assert sorted(opened) == [".sweeps", "a", "b", "c"]
    opened.clear()
    (tmp_path / "c" / "status.json").write_text('{"state": "failed", "message": "out of memory"}')
    write_status(tmp_path, "d", "running", heartbeat=1000.0, host="h")
    rows = sweep.rows(1010.0)
    assert [row["state"] for row in rows] == ["done", "running", "failed", "running"]
    assert sorted(opened) == ["c", "d"]
    opened.clear()
    assert [row["state"] for row in sweep.rows(1001.0 + SILENT_SECONDS)] == ["done", "lost", "failed", "lost"]
    assert opened == []


def test_a_folder_that_goes_away_takes_its_row_along(tmp_path: Path) -> None:
    for run in ("a", "b"):
        write_status(tmp_path, run, "failed")
    sweep = status.Sweep([tmp_path])
    assert len(sweep.rows(0.0)) == 2
    (tmp_path / "a" / "status.json").unlink()
    assert [row["run"] for row in sweep.rows(0.0)] == ["b"]
    (tmp_path / "b" / "status.json").rename(tmp_path / "a" / "status.json")
    (tmp_path / "b").rmdir()
    assert [row["run"] for row in sweep.rows(0.0)] == ["a"]


def test_a_lost_run_that_left_its_record_is_done_at_the_next_look(tmp_path: Path) -> None:
    folder = write_status(tmp_path, "default/a", "running", heartbeat=1000.0)
    sweep = status.Sweep([tmp_path])
    assert [row["state"] for row in sweep.rows(2000.0)] == ["lost"]
    (folder / "record.json").write_text(json.dumps(record_of("set", 0.9, 0, 90.1)))
    assert [row["state"] for row in sweep.rows(2000.0)] == ["done"]
