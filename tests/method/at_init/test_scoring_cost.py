"""What scoring costs: planned, counted and measured."""

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.run.plan import plan

COMMON = ["dataset=digits", "model=resnet20", "model.width=0.25", "epochs=1", "batch_size=256", "sparsity=0.8"]
SAMPLES = {"snip": 100, "random": 0, "grasp": 300, "synflow": 10}
FEWER = {"synflow": ["method.rounds=10"]}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_run_counts_what_its_plan_foretells(name):
    made = compose([*COMMON, f"method={name}", *FEWER.get(name, []), "scope=layer", "allocation=erk", "threads=1"])
    training = assemble(made, torch.device("cpu"))
    training.model.train()
    (update,) = training.prepare()
    assert update.samples == SAMPLES[name]
    assert training.flops.train == 3 * SAMPLES[name] * training.flops.cost.forward()
    assert training.memory.record()["prepare_peak_bytes"] > training.memory.at_rest()
    while training.step < training.total_steps:
        training.take_step()
    assert training.flops.train == plan(made)["flops"]["train"]
