"""Several processes train what one would; they are processes of this machine, on gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fork_server
import pytest
import ranks_worker
import torch
from ranks_worker import CASES
from test_resume import finished, same

from dstrun.config.composition import compose
from dstrun.dataset.loader import Resident
from dstrun.layer.topology import Topology
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.trouble import ConfigError
from dstrun.train.distributed import Place, first_host, place

WORKER = Path(__file__).with_name("ranks_worker.py")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def work(size: int, what: str, folder: Path, ports: int, *words: str) -> None:
    """Start so many processes as torchrun would, and wait for them."""
    common = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, str(WORKER), what, str(folder), ",".join(map(str, free_ports(ports))), *words]
    started = [
        fork_server.Process(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * size, "\n".join(said)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have trained."""
    folder = tmp_path_factory.mktemp("parts")
    work(2, "cases", folder, 1)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_two_train_what_one_trains(case: str, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(WORKER.parents[1] / "backend")
    words, double = CASES[case]
    one = ranks_worker.train(words, double, ALONE)
    two, other = (torch.load(parts / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert same(two["topologies"], other["topologies"])
    assert same(two["model"], other["model"])  # bit for bit: no drift between processes
    assert two["losses"] == other["losses"]
    assert same(one["topologies"], two["topologies"])
    assert (one["updates"], one["flops"]) == (two["updates"], two["flops"])
    close = {"rtol": 1e-9, "atol": 1e-9} if double else {"rtol": 2e-3, "atol": 2e-4}
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(two["losses"]), **close)
    torch.testing.assert_close(one["model"], two["model"], **close)
    assert one["evaluated"] == pytest.approx(two["evaluated"], rel=1e-4)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("words", [["method=gse", "subset=graest", "backend=sparse"]], ids=["graest"])
def test_stopped_and_continued(words: list[str], tmp_path: Path) -> None:
    """Three processes: of two any order of a sum is the same. A signal to one of them stops all at one step."""
    work(3, "stopped", tmp_path, 4, "model=mlp", "model.width=0.3", "scope=global", "schedule.updates=6", *words)
    (record, state, metrics, topology), other = (finished(tmp_path / part) for part in ("whole", "stopped"))
    assert record["env"]["processes"] == 3
    for key in ("accuracy", "parameters", "flops", "updates"):
        assert record[key] == other[0][key]
    for key in state.keys() - {"clock", "last", "memory", "rows"}:  # what was measured is in them
        assert same(state[key], other[1][key])
    assert [row.split(",")[:7] for row in metrics.split()] == [row.split(",")[:7] for row in other[2].split()]
    assert topology == other[3]


def test_other_topologies_are_noticed(tmp_path: Path) -> None:
    work(2, "differ", tmp_path, 1)


RUN = [*ranks_worker.COMMON, "model=mlp", "method=rigl", "epochs=40", "checkpoint.every_minutes=0.001"]


@pytest.mark.timeout(300)
def test_torchrun_stops_and_a_single_process_continues(dstrun, tmp_path: Path) -> None:
    """Asked to stop, two processes save; one ends the run, close to where two would have."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dstrun"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", fork_server.CLIENT: str(fork_server.client(tmp_path))}
    launched = fork_server.Process(
        [*torchrun, *RUN, "distributed=ddp"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("results/default/*/checkpoint.pt")):
        assert launched.poll() is None, launched.communicate()[1]
        time.sleep(0.01)
    launched.send_signal(signal.SIGTERM)
    said = launched.communicate(timeout=120)[1]
    assert said.count(" interrupted: SIGTERM at step ") == 1, said
    (folder,) = (tmp_path / "results" / "default").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert "continues after step" in dstrun(*RUN).stderr
    whole = dstrun(*RUN, "results=whole")
    assert "(new)" in whole.stderr
    two, one = (json.loads(next(tmp_path.glob(f"{r}/*/*/record.json")).read_text()) for r in ("results", "whole"))
    assert two["id"] == one["id"]
    assert two["flops"] == one["flops"]
    assert two["accuracy"]["loss"] == pytest.approx(one["accuracy"]["loss"], rel=0.05)


def test_outside_a_launcher(dstrun) -> None:
    refused = dstrun(*RUN, "distributed=ddp", check=False, env={"WORLD_SIZE": "2"})
    assert refused.returncode == 2
    assert refused.stderr == (
        "dstrun: distributed=ddp needs a process for every part of a batch: start them with "
        "torchrun --nproc-per-node N -m dstrun ..., or as N tasks of one step with SLURM's srun\n"
    )


class Three(Ranks):
    """The second of three, who talks to nobody."""

    rank, size = 1, 3


def test_batches_that_cannot_be_shared_out() -> None:
    option = compose(["dataset=digits"]).build("dataset")
    with pytest.raises(ConfigError, match="batch_size=128 must be a multiple of 3, the number of processes"):
        Resident(option.load(), option, "cpu", 128, 0, True, Three())


def test_parts_make_up_the_whole() -> None:
    option = compose(["dataset=digits"]).build("dataset")
    whole, part = (Resident(option.load(), option, "cpu", 48, 0, True, ranks) for ranks in (ALONE, Three()))
    for mine, all_ in zip(part.batch(7), whole.batch(7), strict=True):
        assert torch.equal(mine, all_[16:32])
    with part.ranks.alone():
        assert torch.equal(part.sample(3, 10)[0], whole.sample(3, 10)[0])
    batches = [y for _, y in whole.eval_batches(16)]
    assert [len(y) for _, y in part.eval_batches(48)] == [len(y) for y in batches[1::3]]


@pytest.mark.parametrize("method", ["sss", "thinet"])
def test_methods_of_a_single_process(method: str) -> None:
    with pytest.raises(
        ConfigError, match=f"distributed=ddp makes no sense with method={method}, which traces channels"
    ):
        compose(["model=resnet20", f"method={method}", "sparsity=0", "distributed=ddp"])


SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[03-04,09]",
    "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "64",
}  # fmt: skip
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}


def test_place_in_slurm() -> None:
    found = place("ddp", SLURM)
    assert (found.rank, found.size, found.local, found.address) == (5, 8, 1, "gpu03")
    assert found.port == place("ddp", SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).port
    assert found.port != place("ddp", SLURM | {"SLURM_STEP_ID": "3"}).port
    assert place("ddp", SLURM | {"MASTER_PORT": "4321"}).port == 4321


def test_torchrun_goes_before_slurm_and_asked_for_before_both() -> None:
    assert place("ddp", SLURM | TORCHRUN) == Place(1, 2, 1, "here", 29500)
    assert place(None, SLURM | TORCHRUN) == Place()


def test_a_batch_script_is_no_task() -> None:
    """Outside of srun there is one process, however many tasks the allocation could hold."""
    with pytest.raises(ConfigError, match="srun"):
        place("ddp", {k: v for k, v in SLURM.items() if "STEP" not in k})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("a,b", "a"),
        ("gpu[03-05,08],cpu1", "gpu03"),
        ("r[1-2]n[10,12]", "r1n10"),
        ("n[7]x", "n7x"),
    ],
)
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_checksum_tells_topologies_apart() -> None:
    made = [Topology((4, 8), torch.tensor(p, dtype=torch.int64)) for p in ([0, 5, 9], [0, 5, 10], [0, 6, 8], [14], [])]
    assert len({topology.checksum() for topology in made}) == len(made)
