"""ITOP's recipes, and R_s: what has been active at any time."""

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.grow.random import Random
from dstrun.run.assemble import assemble
from dstrun.schedule.cosine import Cosine

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "interval", "grow"), [("itop", 4000, "gradient"), ("set_itop", 1500, "random")])
def test_recipe(name, interval, grow):
    made = compose([f"method={name}"])
    schedule, rate = made.build("schedule"), made.build("optimizer")
    assert (made.config["epochs"], made.config["batch_size"], made.choices["grow"]) == (250, 128, grow)
    assert schedule.steps(97656) == list(range(interval, 97657, interval))
    assert schedule.fraction_at(0, 97656) == 0.5
    assert schedule.fraction_at(97655, 97656) == pytest.approx(0.005, abs=1e-6)
    assert schedule.fraction_at(48828, 97656) == pytest.approx(0.2525)
    assert [rate.lr_at(s, 97656) for s in (0, 29999, 30001, 60001, 90001)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001, 0.0001]
    )


def test_recipe_on_imagenet():
    made = compose(["method=itop", "dataset=imagenet", "model=resnet50"])
    total = made.config["epochs"] * (1_281_167 // made.config["batch_size"])
    assert total == 1_000_900
    assert made.build("schedule").steps(total) == list(range(4000, total + 1, 4000))


def test_explored_by_hand(bench):
    # Of 0 1 4 6 one is replaced at each of three updates; by whom is the seed's choice, and counted here.
    made = bench(({0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}, [0.0] * 8))
    made.start(Random(), schedule=Cosine(fraction=0.3, final_fraction=0.2, end=1, interval_steps=2), total=7)
    ever, shares = set(made.weights()), []
    for _ in range(7):
        _, update = made.step()
        ever |= set(made.weights())
        if update:
            shares.append(update.changes[0].explored)
            assert shares[-1] == len(ever) / 8
    assert len(shares) == 3


@pytest.mark.parametrize("backend", ["masked", "sparse"])
def test_the_records_share_is_weighted_by_size(backend):
    words = ["dataset=digits", "model=mlp", "model.width=0.1", "method=set_itop", "sparsity=0.8", "epochs=2"]
    training = assemble(compose([*words, "threads=1", f"backend={backend}"]), CPU)
    assert training.explored() == pytest.approx(0.2, abs=0.02 if backend == "sparse" else 1e-3)
    training.model.train()
    while training.step < training.total_steps:
        training.take_step()
    assert training.updates > 0
    shares = [layer.explored() for layer in training.layers]
    weighted = sum(share * size for share, size in zip(shares, training.sizes, strict=True)) / sum(training.sizes)
    assert training.explored() == pytest.approx(weighted)
    assert 0.25 < training.explored() < 1


def test_every_connection_of_a_dense_network_is_active():
    assert assemble(compose(["dataset=digits", "model=mlp", "method=dense", "threads=1"]), CPU).explored() == 1
