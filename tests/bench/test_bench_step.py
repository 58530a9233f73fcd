from __future__ import annotations

import pytest
import torch

from dstrun.bench import step
from dstrun.bench.arguments import Step

TINY = Step(model="mlp", batch=8, rounds=2, sparsity=(0.8,))


def test_a_tiny_run_gives_steps_and_updates() -> None:
    (rows,) = step.measure(TINY)
    found = {(row["implementation"], row["pass"]): row for row in rows}
    dynamic = [f"{backend} {method}" for backend in ("masked", "sparse") for method in ("gse", "rigl")]
    assert set(found) == {("dense", "step"), *((name, key) for name in dynamic for key in ("step", "update"))}
    assert all(row["rounds"] == 2 and row["median"] > 0 and row["bytes"] > 0 for row in rows)
    assert found["sparse gse", "step"]["bytes"] < found["masked gse", "step"]["bytes"]
    assert found["sparse gse", "step"]["x_median"] == 1.0


@pytest.mark.parametrize("name", ["masked gse", "sparse rigl"])
def test_steps_and_updates_alternate(name: str) -> None:
    passes, training = step.start(step.words(TINY, 0.8, "cpu")[name], torch.device("cpu"))
    assert list(passes) == ["step", "update"]
    assert set(training.memory.peaks) == {"step", "update"}
    for run in passes.values():
        passes_of_topology = training.updates
        updates = run()
        kind = "update" if updates else "step"
        assert passes[kind] is not None
        assert (training.updates > passes_of_topology) == (kind == "update")
    assert training.step == 6
    assert training.updates == 3


def test_images_are_noise_of_the_right_size() -> None:
    _, training = step.start(step.words(TINY, 0.8, "cpu")["dense"], torch.device("cpu"))
    x, y = training.data.batch(0)
    assert x.shape == (8, 3, 32, 32)
    assert training.data.train_count == 16
    assert int(y.max()) < 10
