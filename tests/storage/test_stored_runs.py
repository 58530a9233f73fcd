"""Runs whose weights and optimizer state are stored in 16 and 8 bits: resumed, counted, predicted, refused."""

from __future__ import annotations

import io

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.run.lifecycle import assemble
from dstrun.run.plan import plan
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

COMMON = ["dataset=digits", "model=mlp", "epochs=2", "batch_size=256", "threads=1", "sparsity=0.8"]
SETTINGS = {
    "kahan": ["weights=bf16", "rounding=kahan", "backend=sparse"],
    "bytes": ["weights=bf16", "state=int8", "backend=sparse", "optimizer=adam", "optimizer.lr=0.002"],
    "halves": ["weights=fp16", "state=fp16", "precision=fp16"],
    "masked": ["weights=bf16", "state=int8"],
}
KEPT = {"kahan": (2, 4 + 2 + 2), "bytes": (2, 1 + 1 + 2 + 2), "halves": (2, 2 + 2), "masked": (2, 1 + 2)}
"""Bytes of a weight in the model, and of its state, compensation, age and gradient together."""


def start(*words: str) -> Training:
    threads = torch.get_num_threads()
    training = assemble(compose([*COMMON, "method=gse", *words]), torch.device("cpu"))
    torch.set_num_threads(threads)
    training.model.train()
    training.prepare()
    return training


def leaves(state: object, path: str = "") -> dict[str, object]:
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in leaves(part, f"{path}.{key}").items()}
    return {path: state.tolist() if isinstance(state, torch.Tensor) else state}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_resumes_bit_for_bit_and_holds_the_bytes_promised(name: str) -> None:
    whole, half = start(*SETTINGS[name]), start(*SETTINGS[name])
    while whole.step < whole.total_steps:
        whole.take_step()
    while half.step < half.total_steps // 2:
        half.take_step()
    saved = io.BytesIO()
    torch.save(half.state(), saved)
    saved.seek(0)
    continued = start(*SETTINGS[name])
    continued.load_state(torch.load(saved, weights_only=True))
    while continued.step < continued.total_steps:
        continued.take_step()
    assert continued.updates == whole.updates > 0
    parts = ("model", "optimizer", "layers", "precision")
    one, other = (leaves({part: t.state()[part] for part in parts}) for t in (whole, continued))
    assert one == other
    weights = sum(layer.weight.numel() for layer in whole.layers)
    biases = sum(p.numel() for p in whole.model.parameters()) - weights
    record = whole.memory.record()
    model, rest = KEPT[name]
    adam, blocked = "optimizer=adam" in SETTINGS[name], "state=int8" in SETTINGS[name]
    assert record["model_bytes"] == model * weights + 4 * biases
    state = rest * weights + (2 + adam) * 4 * biases
    exponents = (1 + adam) * blocked * 2 * sum(-(-layer.weight.numel() // 128) for layer in whole.layers)
    counts = 4 * adam * len(list(whole.model.parameters()))
    assert record["optimizer_bytes"] == state + exponents + counts


@pytest.mark.parametrize("name", ["kahan", "bytes", "masked"])
def test_a_plan_predicts_what_is_held(name: str) -> None:
    training = start(*SETTINGS[name])
    for _ in range(2):
        training.take_step()
    predicted = plan(compose([*COMMON, "method=gse", *SETTINGS[name]]))["memory"]
    assert predicted["model_bytes"] == training.memory.record()["model_bytes"]
    age = 0 if any(map(training.procedure.updates_at, (1, 2))) else 2
    grown = age * ("optimizer=adam" in SETTINGS[name]) * sum(layer.weight.numel() for layer in training.layers)
    assert predicted["optimizer_bytes"] - grown == training.memory.record()["optimizer_bytes"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("rounding=kahan", "rounding=kahan makes no sense with weights=fp32, which are not rounded"),
        ("weights=fp16", "weights=fp16 makes no sense with precision=fp32"),
        ("state=int8 optimizer.momentum=0", "state=int8 makes no sense with optimizer=sgd, which has no state"),
        ("method=deepr method.noise=weights weights=bf16", "weights=bf16 makes no sense with method.noise=weights"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*COMMON, *words.split()])
    assert str(error.value).startswith(sentence)
