"""What a record says of each layer agrees with what it says of the whole network; and its command makes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstrun.config.composition import compose, compose_sweep
from dstrun.record.folder import lasting, run_id
from dstrun.run.lifecycle import run

SMALL = ["model=mlp", "dataset=digits", "dataset.limit=128", "epochs=2", "wandb=disabled", "sparsity=0.8", "threads=1"]


def trained(tmp_path: Path, *words: str) -> dict:
    record = run(compose([*SMALL, f"results={tmp_path}", *words])).record
    assert record is not None
    return record


@pytest.mark.parametrize("method", ["dense", "static", "gse", "snip", "gmp", "topkast", "thin", "lth"])
def test_layers_add_up_to_the_network(method: str, tmp_path: Path) -> None:
    sparsity = ["sparsity=0"] if method == "dense" else []
    record = trained(tmp_path, f"method={method}", *sparsity)
    layers, parameters = record["layers"], record["parameters"]
    prunable = sum(layer["connections"] for layer in layers)
    assert prunable == parameters["prunable"]
    assert sum(layer["active"] for layer in layers) == round(prunable * (1 - parameters["sparsity"]))
    assert all(0 < layer["initial"] <= layer["connections"] for layer in layers)
    explored = sum(layer["connections"] * layer["explored"] for layer in layers) / prunable
    assert explored == pytest.approx(parameters["explored"], abs=1e-6)


def test_the_first_topology_is_that_of_the_first_step(tmp_path: Path) -> None:
    def kept(method: str) -> list[float]:
        layers = trained(tmp_path, f"method={method}")["layers"]
        total = sum(layer["connections"] for layer in layers)
        return [sum(layer[key] for layer in layers) / total for key in ("initial", "active")]

    assert kept("snip") == pytest.approx([0.2, 0.2], abs=1e-3)  # pruned before it
    assert kept("gmp") == pytest.approx([1, 0.2], abs=1e-3)  # pruned while it trains


def test_the_command_makes_the_same_run_again(tmp_path: Path) -> None:
    record = trained(tmp_path, "grow=gse", "grow.gamma=2", "experiment=other", "checkpoint.every_minutes=3")
    assert record["command"] == [
        "model=mlp", "dataset=digits", "dataset.limit=128", "epochs=2", "sparsity=0.8", "grow=gse", "grow.gamma=2",
    ]  # fmt: skip
    again = compose(record["command"])
    assert run_id(again.config, again.choices) == record["id"]


def test_the_command_of_a_run_of_a_sweep_file_makes_it_again() -> None:
    experiments = compose_sweep(["model=resnet56", "seed=1"], name="flops")
    for experiment in experiments[:4]:
        words = lasting(experiment.command)
        assert words[:2] == ["-cn", "flops"]
        [again] = compose_sweep(words[2:], name="flops")
        assert run_id(again.config, again.choices) == run_id(experiment.config, experiment.choices)
