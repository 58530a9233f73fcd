"""Runs rebuilt on W&B: in its offline files, read back, and on a stand-in for its server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fork_server
import pytest
import wandb
from small_run import SMALL
from wandb_server import Server, serving

from dstrun.cli.main import main
from dstrun.record import sealed
from dstrun.record.folder import METRICS
from dstrun.report import load
from dstrun.run import sync
from dstrun.tracker import page
from dstrun.tracker import wandb as mirror

pytestmark = pytest.mark.usefixtures("nobody")

OF_THE_MOMENT = ("_timestamp", "_runtime", "_wandb", "_wandb.runtime")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small run, mirrored offline; gives the results folder."""
    folder = tmp_path_factory.mktemp("trained")
    words = [word for word in SMALL if not word.startswith("wandb")]
    command = [sys.executable, "-m", "dstrun", *words, "method=rigl", "schedule.updates=6", "wandb=offline"]
    fork_server.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "results"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the run, without what was mirrored of it; commands start above ``results``."""
    (source,) = trained.glob("default/*")
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(source, Path("results/default") / source.name, ignore=shutil.ignore_patterns("wandb"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """Be logged in to a server of this machine."""
    with serving() as started:
        monkeypatch.setenv("WANDB_BASE_URL", started.url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield started
        wandb.teardown()  # which also lets go of names whose run has failed


def another(run: Path, seed: int) -> Path:
    """Copy a run as one of another seed."""
    name = run.name.replace("seed0", f"seed{seed}")
    copy = shutil.copytree(run, run.with_name(name), ignore=shutil.ignore_patterns("wandb"))
    for file in ("record.json", "status.json"):
        sealed.write(copy / file, json.loads((copy / file).read_text().replace(run.name, name)))
    return copy


def stop(run: Path, epochs: int = 2) -> None:
    """Make it a run that was interrupted after some epochs."""
    (run / "record.json").unlink()
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[: 1 + epochs]))
    status = json.loads((run / "status.json").read_text())
    sealed.write(run / "status.json", status | {"state": "interrupted", "message": "SIGINT at step 22"})


def synced(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[tuple[str, int, str, str]]:
    """Call ``dstrun sync``; gives state, epochs, what was done and the note of each run."""
    capsys.readouterr()
    assert main(["sync", "--format", "json", *words]) == code
    rows = json.loads(capsys.readouterr().out)
    return [(row["state"], row["epochs"], row["sync"], row["note"]) for row in rows]


def mark(run: Path) -> dict:
    return json.loads((run / "wandb" / "synced.json").read_text())["sent"]


def offline(folder: Path) -> dict:
    """Read the only offline run of a folder back, as wandb does, without times of day."""
    (file,) = folder.glob("offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (page,) = [record["run"] for record in records if record["type"] == "run"]
    updates = [record["summary"]["update"] for record in records if record["type"] == "summary"]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    (ended,) = [record["exit"] for record in records if record["type"] == "exit"]
    return {
        "page": {key: page[key] for key in ("run_id", "display_name", "run_group", "tags", "project")},
        "config": {key: value for key, value in page["config"]["update"].items() if key != "_wandb"},
        "history": [plain(row) for row in history],
        "summary": without_names({key: value for update in updates for key, value in update.items()}),
        "exit": ended.get("exit_code", 0),
    }


def without_names(summary: dict) -> dict:
    """Leave out of a table what wandb draws anew whenever it writes it."""
    table = {key: value for key, value in summary.get("layers", {}).items() if "artifact" not in key}
    return plain(summary) | ({"layers": table} if table else {})


def plain(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in OF_THE_MOMENT}


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.lstat().st_mtime_ns for file in folder.rglob("*")}


def test_offline_it_is_the_run_that_was_mirrored_while_it_trained(trained: Path, run: Path, capsys) -> None:
    (live,) = trained.glob("default/*/wandb")
    shutil.copytree(live, run / "wandb", symlinks=True)
    mirrored = offline(run / "wandb")
    (run / "wandb" / ".sync" / "wandb" / "offline-run-of-a-killed-process").mkdir(parents=True)
    assert synced(capsys, "--offline") == [("done", 3, "written", None)]
    rebuilt = offline(run / "wandb")
    assert rebuilt == mirrored == offline(run / "wandb" / "replaced")
    # What both hold is what the run left.
    record, metrics = json.loads((run / "record.json").read_text()), load.metrics(load.runs(run)[0])
    assert rebuilt["config"] == record["config"]
    assert [row["_step"] for row in rebuilt["history"]] == [row["step"] for row in metrics]
    for shown, row in zip(rebuilt["history"], metrics, strict=True):
        shares = {f"density/fc{i}": shown[f"density/fc{i}"] for i in (1, 2, 3)}
        assert shown == {"_step": row["step"]} | page.history(row, {}) | shares
    last = rebuilt["history"][-1]
    assert last["test/top1"] == record["accuracy"]["top1"]
    assert (last["flops"], last["memory/peak"]) == (record["flops"]["train"], record["memory"]["peak_bytes"])
    assert rebuilt["summary"]["state"] == "done"
    assert rebuilt["summary"]["cost/executed_train"] == record["flops"]["executed_train"]
    assert rebuilt["summary"]["layers"]["nrows"] == 3
    assert rebuilt["exit"] == 0
    # The second call sends nothing.
    before = files(run)
    assert synced(capsys, "--offline") == [("done", 3, "already there", None)]
    assert files(run) == before


def test_densities_follow_the_updates(run: Path) -> None:
    layers = [{"name": "fc1", "connections": 100, "initial": 40}, {"name": "fc2", "connections": 10, "initial": 5}]
    record = {"layers": [*layers, {"name": "fc3", "connections": 9, "initial": 9}], "backends": {"fc1": "", "fc2": ""}}
    (run / "topology.csv").write_text("step,layer,active,pruned\n1,fc1,30,0\n1,fc2,4,0\n11,fc1,20,0\n12,fc2,3,0\n")
    known = load.Run(run, "a", "done", record, {})
    assert sync.densities(known, [11, 22]) == [{"fc1": 0.2, "fc2": 0.4}, {"fc1": 0.2, "fc2": 0.3}]
    (run / "topology.csv").unlink()
    assert sync.densities(known, [11]) == [{"fc1": 0.4, "fc2": 0.5}]
    assert sync.densities(load.Run(run, "a", "done", {"backends": {"fc1": ""}}, {}), [11]) == [{}]


def test_a_dry_run_needs_no_server_and_changes_nothing(run: Path, capsys) -> None:
    stop(another(run, 1))
    before = files(Path("results"))
    rows = [("done", 3, "new", None), ("interrupted", 2, "new", "unfinished")]
    assert synced(capsys, "--dry-run") == rows
    assert files(Path("results")) == before
    code = (
        "import sys; sys.modules['torch'] = None\nfrom dstrun.cli.main import main\n"
        "assert main(['sync', '--dry-run', '--project', 'thesis']) == 0 and 'wandb' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "2 new; 2 of 2 would go to https://api.wandb.ai/thesis; nothing was sent" in done.stderr


def test_needs_no_torch(run: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom dstrun.cli.main import main\nmain(['sync', '--offline'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "1 written; to offline/dstrun\nnext: wandb sync results/default/*/wandb/offline-run-*" in done.stderr
    assert list(run.glob("wandb/offline-run-*"))


def test_without_a_server_it_says_so_and_leaves_everything(run: Path, capsys) -> None:
    before = files(run)
    assert main(["sync"]) == 2
    said = "dstrun: sync finds no API key for https://api.wandb.ai: run `wandb login`, or choose --offline\n"
    assert capsys.readouterr().err == said
    assert files(run) == before


def test_what_cannot_be_sent_is_said(run: Path, capsys) -> None:
    others = {seed: another(run, seed) for seed in (1, 2, 3, 4)}
    shutil.copytree(run, Path("results/other") / run.name)
    for seed in (1, 2, 3):
        stop(others[seed], epochs=0 if seed == 2 else 2)
    alive = json.loads((others[1] / "status.json").read_text()) | {"state": "running", "heartbeat": time.time()}
    sealed.write(others[1] / "status.json", alive | {"host": "elsewhere"})
    (others[3] / "config.yaml").unlink()
    (others[4] / "record.json").write_text("{")
    record = json.loads((run / "record.json").read_text())
    del record["config"]["backend"]
    sealed.write(another(run, 5) / "record.json", record | {"id": run.name.replace("seed0", "seed5")})
    assert synced(capsys, "--offline", "--dry-run") == [
        ("done", 3, "new", None),
        ("running", 0, "no", "trains now"),
        ("interrupted", 0, "no", "no epoch yet"),
        ("interrupted", 0, "no", "config.yaml is missing"),
        ("damaged", 0, "no", "its record or status cannot be read"),
        ("done", 0, "no", "its record has an unknown form (KeyError('backend'))"),
        ("done", 3, "no", f"{run} has the same name"),
    ]
    Path("empty").mkdir()
    assert main(["sync", "empty", "--dry-run"]) == 3


def test_an_unfinished_run_is_marked_as_such_and_replaced_when_it_has_grown(run: Path, capsys) -> None:
    whole = shutil.copytree(run, Path("whole"))
    stop(run)
    assert synced(capsys, "--offline") == [("interrupted", 2, "written", "unfinished")]
    part = offline(run / "wandb")
    assert (part["summary"]["state"], part["exit"], len(part["history"])) == ("interrupted", 1, 2)
    assert part["config"] == json.loads((whole / "record.json").read_text())["config"]
    shutil.copytree(whole, run, dirs_exist_ok=True)
    assert synced(capsys, "--offline", "--dry-run") == [("done", 3, "changed", "2 epochs before")]
    assert synced(capsys, "--offline") == [("done", 3, "written", "2 epochs before")]
    assert (offline(run / "wandb")["summary"]["state"], len(offline(run / "wandb")["history"])) == ("done", 3)
    assert offline(run / "wandb" / "replaced") == part
    shutil.rmtree(next(run.glob("wandb/offline-run-*")))
    assert synced(capsys, "--offline") == [("done", 3, "written", None)]


def test_online_a_run_arrives_once_and_whole(run: Path, server: Server, capsys) -> None:
    assert synced(capsys, "--project", "thesis") == [("done", 3, "sent", None)]
    arrived = server.runs[run.name]
    record, (found,) = json.loads((run / "record.json").read_text()), load.runs(run)
    copy = sync.make_copy(found, "done")
    assert {key: arrived["config"][key] for key in record["config"]} == record["config"]
    assert (arrived["groupName"], arrived["tags"]) == (copy.page.group, copy.page.tags)
    assert (arrived["project"], arrived["exitcode"]) == ("thesis", 0)
    assert [plain(row) for row in arrived["history"]] == [{"_step": step} | values for step, values in copy.rows]
    expected = {"_step": 33} | copy.rows[-1][1] | copy.summary
    table = expected.pop("layers")
    shown = plain(arrived["summary"])
    assert (shown.pop("layers")["nrows"], len(table.rows)) == (3, 3)
    assert shown == expected
    assert [path.name for path in (run / "wandb").iterdir()] == ["synced.json"]
    assert list(mark(run)) == [f"{server.url}/thesis"]
    server.runs.clear()
    assert synced(capsys, "--project", "thesis") == [("done", 3, "already there", None)]
    assert server.runs == {}
    assert synced(capsys) == [("done", 3, "sent", None)]
    assert list(mark(run)) == [f"{server.url}/thesis", f"{server.url}/dstrun"]


def test_online_what_is_there_is_neither_doubled_nor_mixed(run: Path, server: Server, capsys) -> None:
    """A live mirror that was cut short, then ``sync`` of the run at that time, of the whole, and of another course."""
    whole = shutil.copytree(run, Path("whole"))
    (found,) = load.runs(run)
    copy = sync.make_copy(found, "done")
    live = mirror.Mirror.open("online", Path("live"), copy.page)
    live.log(copy.rows[0][1], copy.rows[0][0])
    live.finish({}, exit_code=1)
    stop(run)
    assert synced(capsys) == [("interrupted", 2, "sent", "1 epochs were there")]
    assert (server.runs[run.name]["exitcode"], len(server.runs[run.name]["history"])) == (1, 2)
    shutil.copytree(whole, run, dirs_exist_ok=True)
    assert synced(capsys) == [("done", 3, "sent", "2 epochs were there")]
    arrived = server.runs[run.name]
    assert [row["_step"] for row in arrived["history"]] == [11, 22, 33]
    for row, (_, values) in zip(arrived["history"], copy.rows, strict=True):
        assert row["train/loss"] == values["train/loss"]
    assert (arrived["exitcode"], arrived["summary"]["state"]) == (0, "done")
    history = list(arrived["history"])
    for old, new in ((",33,", ",34,"), (f",{copy.rows[-1][1]['train/loss']},", ",0.5,")):
        text = (whole / "metrics.csv").read_text()
        assert old in text
        (run / "metrics.csv").write_text(text.replace(old, new))
        ((_, _, what, note),) = synced(capsys, code=1)
        assert (what, note) == (
            "failed", "W&B has other numbers under this name, and does not replace them: choose another --project"
        )  # fmt: skip
        assert server.runs[run.name]["history"] == history


def test_a_run_of_an_older_version_goes_under_the_names_it_was_made_with(run: Path, server: Server, capsys) -> None:
    record = json.loads((run / "record.json").read_text())
    del record["config"]["tracker"]
    record["config"]["wandb"] = "auto"
    sealed.write(run / "record.json", record)
    assert synced(capsys) == [("done", 3, "sent", None)]
    arrived = server.runs[run.name]
    assert arrived["groupName"] == "mlp-digits-rigl-s0.8"
    keys = {key for key in arrived["history"][-1] if not key.startswith(("_", "density/"))}
    assert keys == {*METRICS} - {"step", "split"}
    assert arrived["summary"]["flops/train"] == record["flops"]["train"]
    assert arrived["summary"]["accuracy/top1"] == record["accuracy"]["top1"]
    assert synced(capsys) == [("done", 3, "already there", None)]
    (run / "wandb" / "synced.json").unlink()
    assert synced(capsys) == [("done", 3, "sent", "3 epochs were there")]
    assert len(arrived["history"]) == 3


def test_a_run_goes_where_its_own_settings_say(run: Path, capsys) -> None:
    record = json.loads((run / "record.json").read_text())
    record["config"]["wandb"] |= {"project": "paper", "entity": "lab"}
    sealed.write(run / "record.json", record)
    assert synced(capsys, "--offline") == [("done", 3, "written", None)]
    assert offline(run / "wandb")["page"]["project"] == "paper"
    assert list(mark(run)) == ["offline/paper"]
    assert synced(capsys, "--offline", "--project", "thesis") == [("done", 3, "written", None)]
    assert list(mark(run)) == ["offline/paper", "offline/thesis"]


def test_a_run_that_the_server_refuses_stops_no_other(run: Path, server: Server, capsys) -> None:
    runs = [run, another(run, 1), another(run, 2)]
    server.deleted.add(runs[0].name)
    rows = synced(capsys, code=1)
    assert [row[2] for row in rows] == ["failed", "sent", "sent"]
    assert rows[0][3].endswith("was previously created and deleted; try a new run name")
    assert [(folder / "wandb" / "synced.json").exists() for folder in runs] == [False, True, True]
    server.deleted.clear()
    wandb.teardown()
    assert [row[2] for row in synced(capsys)] == ["sent", "already there", "already there"]


def test_numbers_that_do_not_arrive_leave_no_mark(run: Path, server: Server, capsys, monkeypatch) -> None:
    monkeypatch.setitem(mirror.SETTINGS, "finish_timeout", 2.0)
    server.full = True
    assert synced(capsys, code=1) == [("done", 3, "failed", "Timed out finishing run.")]
    assert not (run / "wandb" / "synced.json").exists()
    assert not (run / "wandb" / ".sync").exists()


class Fake:
    """What ``wandb.init`` returns, as far as it is used; ``log`` may fail."""

    starting_step = 0

    def __init__(self, log) -> None:
        self.log, self.summary, self.ended = log, {}, []

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.mark.parametrize("words", [[], ["--offline"]])
def test_ctrl_c_marks_what_was_sent_and_nothing_else(run: Path, server, monkeypatch, capsys, words) -> None:
    runs = [run, another(run, 1), another(run, 2)]
    made = []

    def press(*_, **__) -> None:
        raise KeyboardInterrupt

    def init(**asked) -> Fake:
        (asked["dir"] / "wandb" / f"offline-run-1-{asked['id']}").mkdir(parents=True)
        made.append(Fake(press if asked["id"] == runs[1].name else lambda *_, **__: None))
        return made[-1]

    monkeypatch.setattr("wandb.init", init)
    assert main(["sync", *words]) == 130
    assert "interrupted: 1 of 3 are sent; the same command sends the rest" in capsys.readouterr().err
    assert [fake.ended for fake in made] == [[0], [1]]
    assert [(folder / "wandb" / "synced.json").exists() for folder in runs] == [True, False, False]
    assert list((runs[1] / "wandb").iterdir()) == []


def test_a_server_that_goes_away_ends_it(run: Path, server: Server, capsys, monkeypatch) -> None:
    runs = [run, another(run, 1), another(run, 2)]

    def fail(*_, **__) -> None:
        monkeypatch.setattr(mirror, "reachable", lambda _: False)
        raise ConnectionError("no way to the server")

    def init(**asked) -> Fake:
        return Fake(fail if asked["id"] == runs[1].name else lambda *_, **__: None)

    monkeypatch.setattr("wandb.init", init)
    assert main(["sync"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[1:] == [
        f"[2/3] {runs[1].name} failed: no way to the server",
        f"dstrun: sync finds no connection to {server.url} within 2 s: choose --offline",
    ]
    assert [(folder / "wandb" / "synced.json").exists() for folder in runs] == [True, False, False]
