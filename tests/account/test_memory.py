"""Measured memory equals what is known of small networks, and what the system sees."""

from __future__ import annotations

import ctypes
import gc

import pytest
import torch

from dstrun import config
from dstrun.account.memory import _peak, resident_peak_bytes, saved_for_backward, tensor_bytes

CPU = torch.device("cpu")
MB = 2**20


def test_peak_counts_what_is_held_at_once() -> None:
    with _peak(CPU) as peak:
        a = torch.empty(3 * MB, dtype=torch.uint8)
        b = torch.empty(5 * MB, dtype=torch.uint8)
        del a
        c = torch.empty(2 * MB, dtype=torch.uint8)
        del b, c
    assert peak == [8 * MB]


def test_the_profiler_has_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 warns once in a process, of events that one measurement does not have."""
    monkeypatch.setattr("torch.profiler.profiler._WARNINGS_SHOWN", set())
    for _ in range(2):
        with _peak(CPU) as peak:
            torch.empty(MB, dtype=torch.uint8)
        assert peak == [MB]


def test_saved_for_backward_counts_each_storage_once_and_no_parameter() -> None:
    layer = torch.nn.Linear(10, 20)
    x = torch.randn(4, 10)
    with saved_for_backward(layer.parameters()) as saved:
        y = layer(x).relu()
        y = y * y[:, :]
    assert sum(saved.values()) == x.nbytes + y.nbytes  # relu and the product both save relu's output


def test_tensor_bytes_counts_shared_storage_once() -> None:
    x = torch.empty(100)
    assert tensor_bytes([x, x[:50], torch.empty(10)]) == 440


def training(*words: str):
    from dstrun.assemble import assemble

    made = assemble(config.compose(["dataset=digits", "epochs=1", *words]), CPU)
    made.model.train()
    return made


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_of_a_network_by_hand(optimizer: str) -> None:
    run = training("model=mlp", f"optimizer={optimizer}", "sparsity=0.9")
    run.take_step()
    with run.memory.phase("step"):
        run.take_step()
    record = run.memory.record()
    weights, biases = 64 * 300 + 300 * 100 + 100 * 10, 300 + 100 + 10
    assert record["model_bytes"] == 4 * (weights + biases)
    states = {"sgd": 1, "adamw": 2}[optimizer]
    counters = {"sgd": 0, "adamw": 4 * 6 + 2 * weights}[optimizer]  # steps of a parameter, and ages as it grows
    assert record["optimizer_bytes"] == 4 * (weights + biases) * (1 + states) + counters
    assert record["index_bytes"] == 8 * sum(run.active()) + 2 * weights
    batch = 128 * 4
    log_softmax, target = batch * 10, 128 * 8
    assert record["activation_bytes"] == pytest.approx(batch * (64 + 300 + 100) + log_softmax + target, abs=64)
    assert record["peak_bytes"] == record["step_peak_bytes"] >= record["model_bytes"] + record["optimizer_bytes"]
    assert record["update_peak_bytes"] is None


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adamw"],
        ["optimizer=adam", "backend=sparse"],
        ["activations=lean"],
        ["activations=int4", "backend=sparse"],
    ],
    ids=str,
)
def test_prediction_is_near_the_measurement(words: list[str]) -> None:
    from dstrun.plan import plan

    words = ["model=resnet20", "sparsity=0.9", *words]
    run = training(*words)
    run.take_step()
    with run.memory.phase("step"):
        run.take_step()
    measured = run.memory.record()
    predicted = plan(config.compose(["dataset=digits", "epochs=1", *words]))["memory"]
    for part in ("model_bytes", "optimizer_bytes"):
        assert predicted[part] == measured[part]
    assert predicted["index_bytes"] == pytest.approx(measured["index_bytes"], rel=0.02)  # sparse: evenly spaced there
    assert predicted["activation_bytes"] == pytest.approx(measured["activation_bytes"], rel=0.02)
    assert predicted["peak_bytes"] == pytest.approx(measured["peak_bytes"], rel=0.15)


def test_resident_memory_sees_what_the_allocator_sees() -> None:
    """A step that holds 200 MB raises the peak resident memory by about as much."""
    if resident_peak_bytes() is None:
        pytest.skip("no /proc here")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # a process that has trained keeps what it frees
    gc.collect()
    trim(0)
    resident_peak_bytes()  # what that has freed is no peak of the step
    with _peak(CPU) as peak:
        block = torch.ones(50 * MB)
        during = resident_peak_bytes()
        del block
    after = resident_peak_bytes()
    trim(0)
    resident_peak_bytes()
    idle = resident_peak_bytes()
    assert during is not None
    assert after is not None
    assert idle is not None
    assert peak == [200 * MB]
    assert max(during, after) - idle == pytest.approx(200 * MB, rel=0.1)
