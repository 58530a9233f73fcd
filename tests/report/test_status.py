from __future__ import annotations

from pathlib import Path

from report_fixture import record_of, write, write_status

from dstrun.report import status
from dstrun.report.format import render


def test_rows_tell_each_run_apart(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    running = {"epoch": 3, "epochs": 10, "top1": 50.1, "eta_seconds": 80.0, "epoch_seconds": 12.0, "peak_bytes": 64e6}
    write_status(tmp_path, "default/b", "running", heartbeat=1000.0, host="h", **running)
    write_status(tmp_path, "default/c", "running", heartbeat=100.0, host="h", **running)
    write_status(tmp_path, "default/d", "failed", message="loss is nan")
    (tmp_path / "default" / "e").mkdir()
    (tmp_path / "default" / "e" / "status.json").write_text("{")
    rows, columns = status.rows(tmp_path / "default", now=1010.0)
    assert render(rows[:4], columns, "md") == "\n".join(
        [
            "| run | state   | epoch |   top1 |    ETA | epoch time | peak memory | host  | message     |",
            "| --- | ------- | ----: | -----: | -----: | ---------: | ----------: | ----- | ----------- |",
            "| a   | done    | 30/30 | 90.10% |      - |     31.7 s |     60.1 MB | node1 | -           |",
            "| b   | running |  3/10 | 50.10% | 1m 20s |     12.0 s |     64.0 MB | h     | -           |",
            "| c   | lost    |  3/10 | 50.10% |      - |     12.0 s |     64.0 MB | h     | -           |",
            "| d   | failed  |     - |      - |      - |          - |           - | -     | loss is nan |",
        ]
    )
    assert rows[4]["state"] == "damaged"
    assert "status.json cannot be read" in rows[4]["message"]
    assert status.totals(rows) == "5 runs: 1 done, 1 running, 1 lost, 1 failed, 1 damaged"


def test_one_run_has_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.1), folder="a")
    rows, _ = status.rows(folder, now=0.0)
    assert [row["run"] for row in rows] == ["a"]
    assert status.totals(rows) == "1 run: 1 done"


def test_totals_of_nothing() -> None:
    assert status.totals([]) == "0 runs"
