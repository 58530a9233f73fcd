"""Runs train, update their topology and resume with every kind of activations."""

from __future__ import annotations

import io

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.run.lifecycle import assemble
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

pytestmark = pytest.mark.usefixtures("outlined_once")

EVERY = "schedule.interval_steps=2"
CPU = torch.device("cpu")
FEW = ["dataset=digits", "model=resnet20", "model.width=0.5", "batch_size=64", "epochs=1"]


def training(*words: str) -> Training:
    made = assemble(compose([*FEW, *words]), CPU)
    made.model.train()
    return made


def trained(run: Training, steps: int) -> list[int]:
    """Take steps; return the bytes kept in each."""
    kept = []
    for _ in range(steps):
        run.take_step()
        kept.append(run.passing.kept.nbytes)
    return kept


def numbers(run: Training) -> list[torch.Tensor]:
    topologies = [layer.topology.positions for layer in run.layers]
    return [run.loss_sum, *topologies, *run.model.state_dict().values()]


@pytest.mark.parametrize("backend", ["masked", "sparse"])
@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_lean_trains_and_updates_bit_for_bit_as_full_does(method: str, backend: str) -> None:
    words = [f"method={method}", EVERY, f"backend={backend}"]
    runs = [training(*words, f"activations={kind}") for kind in ("full", "lean")]
    (full, lean), (_, kept) = runs, [trained(run, 5) for run in runs]
    assert full.updates == lean.updates >= 2
    assert all(map(torch.equal, numbers(full), numbers(lean)))
    assert len(set(kept)) == 1  # an update keeps no more than a step


@pytest.mark.parametrize(
    "words",
    [
        ["method=rigl", EVERY, "activations=int4"],
        ["method=gse", EVERY, "activations=int8", "backend=sparse"],
        ["method=gse", EVERY, "activations=int4", "precision=bf16", "method.batch=fresh"],
        ["method=gse", EVERY, "activations=fp16", "backend=sparse"],
    ],
    ids=" ".join,
)
def test_a_run_continues_bit_for_bit(words: list[str]) -> None:
    whole, stopped, continued = (training(*words) for _ in range(3))
    trained(whole, 5)
    trained(stopped, 3)
    file = io.BytesIO()
    torch.save(stopped.state(), file)
    file.seek(0)
    continued.load_state(torch.load(file, weights_only=True))
    trained(continued, 2)
    assert whole.updates == continued.updates >= 2
    assert all(map(torch.equal, numbers(whole), numbers(continued)))


@pytest.mark.parametrize(("kept", "precision"), [("fp16", "bf16"), ("bf16", "fp16")])
def test_two_kinds_of_16_bits_are_refused(kept: str, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"activations={kept} makes no sense with precision={precision}"):
        compose([*FEW, f"activations={kept}", f"precision={precision}"])


def test_the_record_counts_what_is_kept() -> None:
    found = {}
    for kind in ("full", "lean", "int4"):
        run = training("method=static", f"activations={kind}")
        trained(run, 1)
        with run.memory.phase("step"):
            trained(run, 1)
        found[kind] = run.memory.record()
    full, lean, int4 = (found[kind]["activation_bytes"] for kind in found)
    assert int4 < 0.15 * full
    assert 0.5 * full < lean < 0.8 * full
    peaks = [record["peak_bytes"] for record in found.values()]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] - peaks[1] > 0.6 * (full - lean)  # less is kept, and no more is made at once
