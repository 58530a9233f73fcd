import json
import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstrun.config.schema import DEFAULTS
from dstrun.system import reach
from dstrun.system.trouble import ConfigError
from dstrun.tracker import wandb as mirror
from dstrun.tracker.page import Page, Table
from dstrun.tracker.protocol import Trackers
from dstrun.tracker.wandb import Mirror, decide

pytestmark = pytest.mark.usefixtures("nobody")

PAGE = Page("id", "group", [], {})


@pytest.fixture
def server():
    """Listen on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nowhere():
    """Name a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}"


class TestDecide:
    def test_without_a_key_auto_is_offline_and_online_is_refused(self):
        assert decide("auto") == ("offline", "no API key for https://api.wandb.ai")
        with pytest.raises(ConfigError) as error:
            decide("online")
        assert str(error.value) == (
            "wandb=online finds no API key for https://api.wandb.ai: run `wandb login`, or choose wandb=offline"
        )

    def test_with_a_key_and_a_server_both_are_online(self, monkeypatch, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert decide("auto") == decide("online") == ("online", f"key and connection for {server}")

    def test_without_a_server_auto_is_offline_and_online_is_refused(self, monkeypatch, nowhere):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", nowhere)
        assert decide("auto") == ("offline", f"no connection to {nowhere} within 2 s")
        with pytest.raises(ConfigError, match=r"^wandb=online finds no connection to .*: choose wandb=offline$"):
            decide("online")

    @pytest.mark.parametrize("url", ["nonsense", "http://", "http://127.0.0.1:port", "http://[::1", "http://a..b"])
    def test_an_address_that_is_none_is_not_reachable(self, monkeypatch, url):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert decide("auto")[0] == "offline"

    def test_a_server_that_never_answers_does_not_hang(self, monkeypatch, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server)
        monkeypatch.setattr(reach, "PATIENCE", 0.1)
        over = threading.Event()

        def lookup(*args):
            over.wait(5)
            raise socket.gaierror

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        start = time.monotonic()
        assert decide("auto")[0] == "offline"
        assert time.monotonic() - start < 1
        over.set()

    def test_a_proxy_stands_for_the_server(self, monkeypatch, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
        assert decide("auto")[0] == "offline"
        monkeypatch.setenv("https_proxy", server)
        assert decide("auto")[0] == "online"
        monkeypatch.setenv("https_proxy", server.removeprefix("http://"))
        assert decide("auto")[0] == "online"
        monkeypatch.setenv("no_proxy", "wandb.invalid")
        assert decide("auto")[0] == "offline"

    @pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
    def test_finds_the_key_of_this_server_in_netrc(self, monkeypatch, tmp_path, server, name):
        file = tmp_path / name
        if name == "elsewhere":
            monkeypatch.setenv("NETRC", str(file))
        monkeypatch.setenv("WANDB_BASE_URL", server + "/")
        file.write_text("machine api.wandb.ai login user password " + "k" * 40)
        assert decide("auto") == ("offline", f"no API key for {server}")
        file.write_text(f"machine {server.removeprefix('http://')} login user password " + "k" * 40)
        assert decide("auto")[0] == "online"

    def test_a_broken_netrc_holds_no_key(self, tmp_path):
        (tmp_path / ".netrc").write_text("machine")
        assert decide("auto")[0] == "offline"

    def test_finds_the_server_that_wandb_login_saved(self, monkeypatch, tmp_path, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        folder = tmp_path / ".config" / "wandb"
        folder.mkdir(parents=True)
        (folder / "settings").write_text(f"[default]\nbase_url = {server}\n")
        assert decide("online") == ("online", f"key and connection for {server}")

    @pytest.mark.parametrize("mode", ["offline", "disabled"])
    def test_offline_and_disabled_are_taken_at_their_word(self, monkeypatch, mode, server):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server)
        monkeypatch.setenv("WANDB_MODE", "online")
        assert decide(mode) == (mode, f"wandb={mode}")

    def test_auto_follows_wandb_mode(self, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert decide("auto") == ("disabled", "WANDB_MODE=disabled")
        monkeypatch.setenv("WANDB_MODE", "online")
        with pytest.raises(ConfigError, match=r"^WANDB_MODE=online finds no API key"):
            decide("auto")

    def test_never_imports_wandb(self):
        code = (
            "import sys; from dstrun.tracker.protocol import Trackers\n"
            "for mode in ('auto', 'disabled'):\n"
            "    run = Trackers({'tracker': ['wandb'], 'wandb': {'mode': mode}})\n"
            "run.open(None, None); run.log({'loss': 1}, 1); run.finish({}, 0)\n"
            "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_offline_run_holds_what_was_mirrored(tmp_path):
    run = Mirror.open("offline", tmp_path, Page("mlp-3f9c2a", "first", ["gse"], {"model": {"width": 1.0}}))
    for epoch in range(1, 4):
        run.log({"loss": 1 / epoch, "accuracy/top1": 10.0 * epoch}, step=epoch)
    run.finish({"flops": {"train": 123_456_789_012}}, exit_code=0)

    (file,) = tmp_path.glob("wandb/offline-run-*/run-mlp-3f9c2a.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert (started["run_id"], started["display_name"], started["project"]) == ("mlp-3f9c2a", "mlp-3f9c2a", "dstrun")
    assert (started["run_group"], started["tags"]) == ("first", ["gse"])
    assert started["config"]["update"]["model"] == {"width": 1}
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == pytest.approx([1, 1 / 2, 1 / 3])
    assert rows[2]["accuracy/top1"] == 30
    summaries = [r["summary"]["update"] for r in records if r["type"] == "summary"]
    assert any(s.get("flops") == {"train": 123_456_789_012} for s in summaries)
    assert not any("hardware" in line or "requirements" in line for line in lines)


@pytest.fixture
def fake(monkeypatch):
    """Replace ``wandb.init`` by one that keeps its arguments and a run that keeps what is logged."""
    import wandb

    run = SimpleNamespace(starting_step=0, logged=[], summary={}, ended=[])
    run.log = lambda values, step, commit: run.logged.append((step, values))
    run.finish = lambda exit_code: run.ended.append(exit_code)

    def init(**arguments):
        run.arguments = arguments
        return run

    monkeypatch.setattr(wandb, "init", init)
    return run


def followed(folder: Path, mode: str = "offline") -> Trackers:
    """Open W&B for a run as training does."""
    followers = Trackers({"tracker": ["wandb"], "wandb": {"mode": mode}})
    followers.open(folder, PAGE)
    return followers


def test_online_run_is_continued_where_it_stopped(fake, tmp_path, monkeypatch, server):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_PROJECT", "thesis")
    fake.starting_step = 3
    run = followed(tmp_path, "online")
    for step in range(1, 5):
        run.log({"loss": step}, step)
    run.finish({"top1": 90.0}, 1)
    assert fake.logged == [(3, {"loss": 3}), (4, {"loss": 4})]
    assert (fake.summary, fake.ended) == ({"top1": 90.0}, [1])
    said = fake.arguments
    assert (said["mode"], said["id"], said["resume"], said["project"]) == ("online", "id", "allow", "thesis")
    settings = said["settings"]
    assert (settings.console, settings.silent, settings.x_disable_stats) == ("off", True, True)
    assert settings.init_timeout < 30


def test_settings_say_where_a_run_goes_and_how_it_is_shown(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "thesis")
    said = {"project": "paper", "entity": "lab", "notes": "a pilot", "system": True}
    config = {"wandb": DEFAULTS["wandb"] | said}
    Mirror.open("offline", tmp_path, Page("id", "group", ["pilot"], config))
    given = fake.arguments
    assert {key: given[key] for key in ("project", "entity", "notes", "group", "tags")} == {
        "project": "paper", "entity": "lab", "notes": "a pilot", "group": "group", "tags": ["pilot"],
    }  # fmt: skip
    assert not given["settings"].x_disable_stats
    Mirror.open("offline", tmp_path, Page("id", "group", [], {"wandb": "offline"}))  # of an older version
    assert (fake.arguments["project"], fake.arguments["entity"]) == ("thesis", None)


def test_a_table_is_shown_as_one(fake, tmp_path):
    Mirror.open("offline", tmp_path, PAGE).finish({"state": "done", "layers": Table(["name"], [["fc1"]])})
    assert fake.summary["state"] == "done"
    assert (fake.summary["layers"].columns, fake.summary["layers"].data) == (["name"], [["fc1"]])


def test_a_setting_that_this_wandb_lacks_is_left_out(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(mirror.SETTINGS, "x_of_another_version", 1)
    Mirror.open("offline", tmp_path, PAGE).log({"loss": 1}, 1)
    assert fake.logged == [(1, {"loss": 1})]


@pytest.mark.parametrize("moment", ["open", "log", "finish"])
def test_a_failure_is_said_once_and_stops_nothing(fake, tmp_path, monkeypatch, caplog, moment):
    def fail(*args, **kwargs):
        raise ConnectionError("no way\nto the server")

    if moment == "open":
        monkeypatch.setattr("wandb.init", fail)
    else:
        setattr(fake, moment, fail)
    with caplog.at_level(logging.WARNING, "dstrun"):
        run = followed(tmp_path)
        for step in range(3):
            run.log({"loss": 1.0}, step)
        run.finish({}, 0)
        run.finish({}, 0)
    assert caplog.messages == [
        "tracker wandb has stopped logging this run, whose record on disk continues without it "
        "(dstrun sync sends it): no way to the server",
    ]
