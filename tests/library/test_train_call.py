"""``dstrun.train`` trains what the command line does, and leaves the process as it was."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from small_run import SMALL

import dstrun as library
from dstrun.system.trouble import ConfigError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def on_disk(record: dict) -> dict:
    (path,) = Path("results/default").glob(f"{record['id']}/record.json")
    found = json.loads(path.read_text())
    assert found.keys() - record.keys() <= {"checksum"}
    return {key: found[key] for key in record}


def numbers(record: dict) -> dict:
    return {key: record[key] for key in ("id", "config", "command", "accuracy", "flops", "layers", "updates", "memory")}


def test_a_run_is_that_of_the_command_line(dstrun) -> None:
    record = library.train(*SMALL, "threads=1")
    assert record == on_disk(record)
    done = dstrun(*SMALL, "threads=1")
    assert "already done" in done.stdout
    again = library.train(*SMALL, "threads=1")
    assert again == record
    dstrun(*SMALL, "threads=1", "experiment=other")
    (path,) = Path("results/other").glob("*/record.json")
    assert numbers(json.loads(path.read_text())) | {"config": None} == numbers(record) | {"config": None}


def test_what_torch_is_set_to_stays() -> None:
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    library.train(*SMALL, f"threads={threads + 1}", "epochs=1")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_hydra_of_a_program_stays_open() -> None:
    with initialize_config_module("dstrun.conf", version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        with pytest.raises(ConfigError):
            library.train("sparsity=2")
        assert GlobalHydra.instance().hydra is mine
    assert not GlobalHydra.instance().is_initialized()


def test_it_trains_in_another_thread() -> None:
    found: list[dict] = []
    thread = threading.Thread(target=lambda: found.append(library.train(*SMALL, "epochs=1", "threads=1")))
    thread.start()
    thread.join()
    assert found[0]["state"] == "done"


def test_an_interrupt_saves_and_the_same_call_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = library.train(*SMALL, "threads=1", "experiment=whole")
    from dstrun.train import fit

    step = fit.take_timed_step

    def interrupted(training, journal) -> None:
        step(training, journal)
        if training.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(fit, "take_timed_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="SIGINT at step 20 of 33; the same call continues it"):
            library.train(*SMALL, "threads=1")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    continued = library.train(*SMALL, "threads=1")
    assert continued["accuracy"] == whole["accuracy"]
    assert continued["layers"] == whole["layers"]


def test_a_run_that_fails_is_raised() -> None:
    with pytest.raises(library.RunError, match=r"results/default/mlp.* diverged: the loss is not finite") as error:
        library.train(*SMALL, "optimizer.lr=1e6")
    assert error.value.state == "diverged"
    assert (Path(error.value.folder) / "status.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "seed=0"], "-m is for the command line"),
        (["seed=0,1"], "seed=0,1 lists several values: from Python, each call trains one run"),
        (["table"], "table is a command"),
        (["sparsty=0.9"], "did you mean sparsity"),
        (["distributed=ddp"], "distributed=ddp is for the command line"),
        (["hydra.sweeper.params={}"], "only applies to sweeps"),
    ],
)
def test_what_cannot_be_run_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        library.train(*SMALL[:3], *words)
    assert not Path("results").exists()


def test_options_of_ones_own_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine" / "schedule").mkdir(parents=True)
    (tmp_path / "mine" / "schedule" / "often.yaml").write_text(
        "_target_: dstrun.schedule.cosine.Cosine\ninterval_steps: 7\n"
    )
    with pytest.raises(ConfigError, match="often"):
        library.train(*SMALL, "schedule=often")
    record = library.train(*SMALL, "schedule=often", "epochs=1", config_dir=tmp_path / "mine")
    assert record["choices"]["schedule"] == "often"
