from __future__ import annotations

import io
import json
import subprocess
from types import SimpleNamespace

import fork_server
import pytest
import torch

from dstrun.bench import point, scaling
from dstrun.bench.arguments import SCALED, Scaling
from dstrun.layer.initial import initial
from dstrun.system.trouble import ConfigError

TINY = {"n": 48, "degree": 4, "batch": 5}


@pytest.mark.parametrize("name", SCALED)
def test_the_network_trains_at_its_degree(name: str) -> None:
    network = point.Network(name, **TINY)
    weights = [p.detach().clone() for p in network.model.parameters()]
    active = [int((w.values() if w.layout == torch.sparse_csr else w).count_nonzero()) for w in weights]
    assert active == [48 * 4] * 3
    network.step()
    for old, new in zip(weights, network.model.parameters(), strict=True):
        one, two = (w.to_dense() if w.layout == torch.sparse_csr else w for w in (old, new.detach()))
        assert not torch.equal(one, two)
        assert torch.equal(one == 0, two == 0)


def test_all_compute_the_same() -> None:
    losses = {}
    for name in SCALED:
        network = point.Network(name, **TINY)
        y = network.model(network.x)
        losses[name] = (y.t() if name == "torch csr" else y).detach()
    for name in SCALED[1:]:
        torch.testing.assert_close(losses[name], losses["masked"], rtol=1e-4, atol=1e-5)


def test_bytes_follow_what_is_stored() -> None:
    held = {name: point.Network(name, 256, 4, 2).bytes() for name in SCALED}
    # weight, gradient, momentum, mask, explored mask and positions of three layers, and a few activations
    assert held["masked"] == pytest.approx(3 * (14 * 256**2 + 8 * 1024), rel=0.05)
    assert held["sparse"] < held["masked"] / 10
    assert held["torch csr"] < held["masked"] / 10


@pytest.mark.parametrize("name", SCALED)
def test_starts_may_be_given_and_products_be_of_bfloat16(name: str) -> None:
    starts = [initial((48, 48), 100, 1, index) for index in range(point.LAYERS)]
    network = point.Network(name, **TINY, bf16=name != "torch csr", starts=starts)
    network.step()
    weights = [w.values() if w.layout == torch.sparse_csr else w for w in map(torch.detach, network.model.parameters())]
    assert [int(w.count_nonzero()) for w in weights] == [100] * 3
    assert {w.dtype for w in weights} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_none_is_measured() -> None:
    with pytest.raises(ConfigError, match="--device cuda is not available on this machine"):
        next(scaling.measure(Scaling(sizes=(64,), device="cuda")))


@pytest.mark.gpu
def test_on_a_gpu_the_same_is_measured() -> None:
    (rows,) = scaling.measure(Scaling(sizes=(256,), degree=4, batch=4, rounds=2, threads=1, device="cuda"))
    assert [row["implementation"] for row in rows] == list(SCALED)
    assert all(row["median"] > 0 and row["bytes"] > 0 and row["resident_bytes"] > 0 for row in rows)
    assert {row["device"] for row in rows} == {"cuda"}


def test_masked_is_predicted_to_grow_with_the_square() -> None:
    masked = [point.predict("masked", n, 128, 128) for n in (16384, 32768)]
    sparse = [point.predict("sparse", n, 128, 128) for n in (16384, 32768)]
    assert masked[1] - masked[0] > 3 * 14 * 3 * 16384**2
    assert sparse[1] - sparse[0] < 1.1 * (sparse[0] - (1 << 30))


def test_serving_answers_every_line() -> None:
    said = []
    case = {"implementation": "sparse", **TINY, "threads": None, "device": "cpu"}
    point.serve(iter(io.StringIO(f"{json.dumps(case)}\nstep\nstep\n").readline, ""), said.append)
    assert [set(each) for each in said] == [{"bytes"}, {"seconds", "resident"}, {"seconds", "resident"}]


def test_a_tiny_run_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    forked = SimpleNamespace(Popen=fork_server.Process, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(scaling, "subprocess", forked)
    (rows,) = scaling.measure(Scaling(sizes=(64,), degree=4, batch=4, rounds=2, threads=1))
    assert [row["implementation"] for row in rows] == list(SCALED)
    assert all((row["n"], row["active"], row["rounds"]) == (64, 3 * 64 * 4, 2) for row in rows)
    assert {row["device"] for row in rows} == {"cpu"}
    assert all(row["median"] > 0 and row["bytes"] > 0 and row["resident_bytes"] > 50e6 for row in rows)


class InProcess(scaling.Point):
    """A point whose network lives here."""

    def __init__(self, case, limit) -> None:
        self.case, self.resident, self.ended = case, 10**9, False

    def start(self) -> int:
        case = {key: value for key, value in self.case.items() if key != "threads"}
        self.network = point.Network(**case)
        return self.network.bytes()

    def step(self) -> dict[str, float]:
        assert not self.ended
        self.network.step()
        return {"step": 1.0 + self.case["n"]}

    def end(self) -> None:
        self.ended = True


def test_widths_are_measured_in_order(monkeypatch) -> None:
    monkeypatch.setattr(scaling, "Point", InProcess)
    first, second = scaling.measure(Scaling(sizes=(64, 32), degree=4, batch=4, rounds=3, limit=1e9))
    for rows, n in ((first, 32), (second, 64)):
        assert [(row["implementation"], row["median"], row["rounds"]) for row in rows] == [
            (name, 1.0 + n, 3) for name in SCALED
        ]


def test_what_would_not_fit_is_not_tried_and_wider_ones_are_not_asked(monkeypatch) -> None:
    monkeypatch.setattr(scaling, "Point", lambda *_: pytest.fail("a process was started"))
    found = list(scaling.measure(Scaling(sizes=(64, 128), memory=0.5)))
    assert len(found) == 1
    assert {row["implementation"] for row in found[0]} == set(SCALED)
    assert all(row["note"].startswith("not run: would need about 1.") for row in found[0])
    assert all("median" not in row for row in found[0])


def test_one_that_takes_too_long_is_ended_and_the_others_go_on(monkeypatch) -> None:
    class Slow(InProcess):
        def step(self) -> dict[str, float]:
            if self.case["implementation"] == "masked":
                raise scaling.Failed("masked", "took longer than 1 s")
            return super().step()

    monkeypatch.setattr(scaling, "Point", Slow)
    first, second = scaling.measure(Scaling(sizes=(32, 64), degree=4, batch=4, rounds=1))
    found = {row["implementation"]: row for row in first}
    assert found["masked"]["note"] == "stopped: took longer than 1 s"
    assert found["sparse"]["median"] > 0
    assert {row["implementation"] for row in second} == {"sparse", "torch csr"}


def test_a_process_that_ends_is_said() -> None:
    process = scaling.Point({"implementation": "no such", **TINY, "threads": 1}, limit=60)
    with pytest.raises(scaling.Failed, match="stopped: the process ended"):
        process.start()
    process.end()


def test_a_process_that_is_late_is_said() -> None:
    process = scaling.Point({"implementation": "sparse", **TINY, "threads": 1}, limit=1e-3)
    with pytest.raises(scaling.Failed, match=r"stopped: took longer than 0\.001 s"):
        process.start()
    process.end()
