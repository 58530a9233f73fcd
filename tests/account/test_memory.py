"""Measured memory equals what is known of small networks, and what the system sees."""

from __future__ import annotations

import ctypes
import gc
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from dstrun.account.memory import resident_peak_bytes, tensor_bytes
from dstrun.account.recorded import recorded
from dstrun.account.timeline import Event, timeline
from dstrun.config.composition import compose
from dstrun.method.after import calibrated
from dstrun.run.predict import predict_memory, steps_to_see

CPU = torch.device("cpu")
MB = 2**20


def risen(events: list[Event]) -> int:
    return timeline(events, {}, {}, {}).peak


def test_the_profiler_has_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 warns once in a process, of events that one measurement does not have."""
    monkeypatch.setattr("torch.profiler.profiler._WARNINGS_SHOWN", set())
    for _ in range(2):
        with recorded(CPU) as events:
            torch.empty(MB, dtype=torch.uint8)
        assert risen(events) == MB


def test_tensor_bytes_counts_shared_storage_once() -> None:
    x = torch.empty(100)
    assert tensor_bytes([x, x[:50], torch.empty(10)]) == 440


def training(*words: str):
    from dstrun.run.assemble import assemble

    made = assemble(compose(["dataset=digits", "epochs=1", *words]), CPU)
    made.model.train()
    return made


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_of_a_network_by_hand(optimizer: str) -> None:
    run = training("model=mlp", f"optimizer={optimizer}", "sparsity=0.9", "schedule.interval_steps=3")
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


SMALL = ["model=resnet20", "model.width=0.5", "batch_size=32"]
SOON = "schedule.interval_steps=3"


def measured(*words: str) -> dict[str, Any]:
    """Take the steps that a prediction looks at, and return what is on record of their memory."""
    run = training(*words)
    run.prepare()
    for step in steps_to_see(run):
        run.step = step - 1
        with run.memory.phase("update" if run.procedure.updates_at(step) else "step") if step > 1 else nullcontext():
            run.take_step()
    return run.memory.record()


@pytest.mark.parametrize(
    "words",
    [
        ["model=mlp", "method=gse", "optimizer=adam", SOON],
        ["model=mlp", "method=snip", "method.samples_per_class=5"],
        ["model=resnet20", "model.width=0.5", "method=rigl", "backend=sparse", "batch_size=32", SOON],
        [*SMALL, "method=gse", "backend=sparse", "activations=lean", "checkpointing=block", "microbatch=16", SOON],
        [*SMALL, "method=set", "backend=sparse", "activations=int4", "weights=bf16", "state=int8", SOON],
    ],
    ids=lambda words: " ".join(words[-6:-1]),
)
def test_prediction_is_near_the_measurement(words: list[str]) -> None:
    """All phases and all parts: the same code tells and splits the allocations of both."""
    found = measured(*words, "sparsity=0.9")
    predicted = predict_memory(compose(["dataset=digits", "epochs=1", *words, "sparsity=0.9"]))
    phases = {"prepare", "step"} if "method=snip" in words else {"step", "update"}
    assert predicted["at_peak"].keys() == found["at_peak"].keys() == phases
    for part in ("model_bytes", "optimizer_bytes"):
        assert predicted[part] == found[part]
    assert predicted["index_bytes"] == pytest.approx(found["index_bytes"], rel=0.02)  # other connections are active
    assert predicted["activation_bytes"] == pytest.approx(found["activation_bytes"], rel=0.05)
    for phase, parts in found["at_peak"].items():
        assert sum(parts.values()) == found[f"{phase}_peak_bytes"]
        assert sum(predicted["at_peak"][phase].values()) == pytest.approx(sum(parts.values()), rel=0.05)


@pytest.mark.parametrize(("method", "passes"), [("fisher", 20), ("taylor", 4)])
def test_two_passes_foretell_the_memory_of_many(method: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images are scored one after the other, or some at a time, a prediction takes two passes."""
    words = [f"method={method}", "method.samples_per_class=2", "method.rounds=2", "model=mlp", "dataset=digits"]
    monkeypatch.setattr(calibrated, "CHUNK", 5)
    taken: list[int] = []

    def every(x: Any, y: Any, size: int) -> Any:
        taken.append(len(x.split(size)))
        return zip(x.split(size), y.split(size), strict=True)

    predicted = predict_memory(compose([*words, "epochs=2", "sparsity=0.9"]))
    monkeypatch.setattr(calibrated, "_passes", every)
    assert predict_memory(compose([*words, "epochs=2", "sparsity=0.9"])) == predicted
    assert taken == [passes]
    assert "update" in predicted["at_peak"]


def test_the_dense_gradient_of_rigl_is_seen_and_gse_has_none() -> None:
    """A layer of 3 million connections of which 1 % are active: RigL looks at all of them, some rows at a time."""
    words = ["model=mlp", "model.width=10", "backend=sparse", "batch_size=16", "sparsity=0.99", SOON]
    rigl, gse = (measured(*words, f"method={method}")["at_peak"]["update"] for method in ("rigl", "gse"))
    assert rigl["transient"] > 4 * 2**20  # a block of the dense gradient
    assert gse["transient"] < rigl["transient"] / 4


def test_resident_memory_sees_what_the_allocator_sees() -> None:
    """A step that holds 200 MB raises the peak resident memory by about as much."""
    if resident_peak_bytes() is None:
        pytest.skip("no /proc here")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # a process that has trained keeps what it frees
    gc.collect()
    trim(0)
    resident_peak_bytes()  # what that has freed is no peak of the step
    with recorded(CPU) as events:
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
    assert risen(events) == 200 * MB
    assert max(during, after) - idle == pytest.approx(200 * MB, rel=0.1)
