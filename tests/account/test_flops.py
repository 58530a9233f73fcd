"""FLOPs equal independent counts: PyTorch's own counter at density 1, and hand counts of updates."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dstrun.account.flops import FlopMeter, LayerCost, NetworkCost, network_cost, paper_ratio
from dstrun.config.composition import compose
from dstrun.layer.criterion import Cost
from dstrun.method.update import LayerUpdate, ProductCounts, Update


@pytest.mark.parametrize("model", ["mlp", "resnet20", "vgg16_small", "resnet50", "vit"])
def test_dense_counts_equal_pytorchs_counter(model: str) -> None:
    """Forward, and forward plus backward less the first layer's input gradient; attention apart."""
    experiment = compose([f"model={model}"])
    image = (3, 32, 32)
    with torch.device("meta"):
        net = experiment.build("model").build(image, 10)
        x = torch.empty(2, *image)
    cost = network_cost(net, image)
    sizes = [layer.size for layer in cost.layers]
    executed = cost.executed([False] * len(sizes), ProductCounts.of(sizes))
    with FlopCounterMode(display=False) as forward:
        loss = net(x).sum()
    assert forward.get_total_flops() == 2 * (cost.forward() + cost.attention)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    if not cost.attention:  # PyTorch counts a backward of attention that recomputes its forward
        assert backward.get_total_flops() == 2 * (executed - cost.forward())
    meter = FlopMeter(cost, None)
    meter.step(2, ProductCounts.of([layer.size for layer in cost.layers]), [])
    assert meter.executed == 2 * executed
    assert meter.train == 2 * 3 * cost.forward()


def test_training_executes_what_is_counted() -> None:
    """A masked training step, topology update included, under PyTorch's counter."""
    from dstrun.run.assemble import assemble

    words = ["model=resnet20", "dataset=digits", "sparsity=0.9", "batch_size=4", "schedule.interval_steps=2"]
    training = assemble(compose([*words, "epochs=1", "grow=gradient"]), torch.device("cpu"))
    training.model.train()
    for _ in range(2):
        before = training.flops.executed
        with FlopCounterMode(display=False) as counter:
            updates = training.take_step()
        assert counter.get_total_flops() == training.flops.executed - before
    assert updates


COST = NetworkCost([LayerCost("a", (4, 3), 10, True), LayerCost("b", (2, 4), 5, False)], attention=0)
DENSE = 2 * (12 * 10 + 8 * 5)
ACTIVE = [6, 2]
SPARSE = 2 * (6 * 10 + 2 * 5)


def test_counts_of_a_device_are_read_when_somebody_asks() -> None:
    """The same sums, however many steps come before a look; what is not prunable is in every step."""
    cost = NetworkCost(COST.layers, 0, fixed=7, fixed_executed=20)
    known, waiting = FlopMeter(cost, None), FlopMeter(cost, None)
    last = update(Cost.NONE, False, 0, [0, 0])
    for step, counts in enumerate(([6, 2], [5, 2], [5, 1], [0, 0], [3, 3]), 1):
        for meter, products in (
            (known, ProductCounts.of(counts, [12, 8])),
            (waiting, torch.tensor([counts, counts, [12, 8]])),
        ):
            meter.step(10 + step, products, [last] if step == 5 else [])
        assert step % 2 or waiting.train == known.train
    assert waiting.state() == known.state()


def update(cost: Cost, replaces: bool, samples: int, candidates: list[int]) -> Update:
    changes = [LayerUpdate(n, a, 1, 1, c, 0.0) for n, a, c in zip("ab", ACTIVE, candidates, strict=True)]
    return Update(1, cost, replaces, samples, changes)


class Grow:
    cost, regrow = Cost.CANDIDATE_GRAD, False

    def __init__(self, aggregates: bool) -> None:
        self.aggregates = aggregates


CANDIDATES = 2 * (3 * 10 + 1 * 5)
SUMS = 2 * (120 // 4 + 40 // 2)


@pytest.mark.parametrize(
    ("made", "aggregates", "train", "executed"),
    [
        (None, False, 3 * SPARSE, 3 * DENSE - 240),
        (update(Cost.NONE, False, 0, [9, 9]), False, 3 * SPARSE, 3 * DENSE - 240),
        (update(Cost.DENSE_GRAD, True, 0, [6, 6]), False, 2 * SPARSE + DENSE, 3 * DENSE - 240),
        (update(Cost.CANDIDATE_GRAD, True, 0, [3, 1]), False, 2 * SPARSE + CANDIDATES, 3 * DENSE - 240),
        (update(Cost.CANDIDATE_GRAD, True, 0, [3, 1]), True, 2 * SPARSE + CANDIDATES + SUMS, 3 * DENSE - 240 + SUMS),
    ],
)
def test_a_step_by_hand(made: Update | None, aggregates: bool, train: int, executed: int) -> None:
    meter = FlopMeter(COST, Grow(aggregates))  # type: ignore[arg-type]
    meter.step(7, ProductCounts.of(ACTIVE), [made] if made else [])
    assert (meter.train, meter.executed, meter.samples) == (7 * train, 7 * executed, 7)


def test_fresh_samples_cost_besides_the_step() -> None:
    meter = FlopMeter(COST, Grow(True))  # type: ignore[arg-type]
    meter.step(7, ProductCounts.of(ACTIVE), [update(Cost.CANDIDATE_GRAD, False, 3, [3, 1])])
    assert meter.train == 7 * 3 * SPARSE + 3 * (2 * SPARSE + CANDIDATES + SUMS)
    assert meter.executed == 7 * (3 * DENSE - 240) + 3 * (3 * DENSE - 240 + SUMS)


def test_samples_that_score_active_connections_cost_three_passes_of_the_network_before() -> None:
    changes = [LayerUpdate("a", 2, 4, 0, 0, 1.0), LayerUpdate("b", 2, 0, 0, 0, 1.0)]
    meter = FlopMeter(COST, None)
    meter.step(7, ProductCounts.of([2, 2]), [Update(1, Cost.NONE, False, 3, changes)])
    assert meter.train == 7 * 3 * 2 * (2 * 10 + 2 * 5) + 3 * 3 * SPARSE
    assert meter.executed == (7 + 3) * (3 * DENSE - 240)


def test_plan_counts_what_training_counts() -> None:
    """The plan of a run and the record of that run agree to the last FLOP."""
    from dstrun.run.assemble import assemble
    from dstrun.run.plan import plan

    fresh = "method=gse method.batch=fresh subset=grabo"
    layers = "sparsity=0.9 scope=layer allocation=erk"
    again = [f"method={name} method.rounds=2 {layers}" for name in ("magnitude", "taylor")]
    again.append(f"method=fisher method.rounds=2 method.samples_per_class=2 {layers}")  # a pass for each image
    again += [f"method=lth method.levels=2 method.rewind=0.5 {layers}", f"method=lth method.prune_share=0.6 {layers}"]
    for method in ("method=gse", "method=rigl", "method=set", fresh, "method=gmp", *again):
        words = [*method.split(), "model=mlp", "dataset=digits", "sparsity=0.9", "epochs=2"]
        experiment = compose(words)
        training = assemble(experiment, torch.device("cpu"))
        training.model.train()
        while training.step < training.total_steps:
            training.take_step()
        planned, samples = plan(experiment), training.nominal_steps * experiment.config["batch_size"]
        counted = training.flops.record(training.active(), samples)
        assert {k: planned["flops"][k] for k in counted} == counted
        assert planned["flops"]["updates"] == training.updates > 0
        assert planned["parameters"]["active"] == sum(training.active()) + planned["parameters"]["dense"] - 50200


@pytest.mark.parametrize(("sparse", "expected"), [(0.2418, 0.244), (0.4138, 0.416)])
def test_rigls_published_ratio(sparse: float, expected: float) -> None:
    assert paper_ratio(Cost.DENSE_GRAD, sparse, 1.0, 100) == pytest.approx(expected, abs=5e-4)


def test_gses_saving_over_rigl_at_99_percent() -> None:
    rigl = paper_ratio(Cost.DENSE_GRAD, 0.024, 1.0, 100)
    gse = paper_ratio(Cost.CANDIDATE_GRAD, 0.024, 1.0, 100, candidates=0.024)
    assert 1 - gse / rigl == pytest.approx(0.117, abs=0.003)


def test_what_is_computed_again_counts_as_executed() -> None:
    """One forward pass more of the layers in a chain; the method's own FLOPs are the same; the plan agrees."""
    from dstrun.run.assemble import assemble
    from dstrun.run.blueprint import Blueprint
    from dstrun.run.plan import plan_flops

    words = [*("dataset=digits", "model=resnet20", "model.width=0.25", "epochs=1", "batch_size=32", "wandb=disabled")]
    words += ["method=gse", "subset=grabo", "backend=sparse", "threads=1", "schedule.updates=2", "dataset.limit=320"]
    found = []
    for more in ((), ("checkpointing=block",), ("microbatch=8",)):
        experiment = compose([*words, *more])
        run = assemble(experiment, torch.device("cpu"))
        run.model.train()
        while run.step < run.total_steps:
            run.take_step()
        found.append((run.flops, plan_flops(Blueprint(experiment))))
        assert run.flops.executed == pytest.approx(found[-1][1]["executed_train"], rel=0.02)
    (plain, _), (again, _), (split, _) = found
    assert plain.train == again.train == split.train
    counts = [layer.again for layer in again.built.layers]
    assert counts == [False] + [True] * (len(counts) - 2) + [False]
    inner = sum(2 * a * layer.uses for a, layer in zip(run.active(), again.built.layers, strict=True) if layer.again)
    assert again.executed - plain.executed == inner * again.samples
    without = split.built.executed([True] * len(counts), ProductCounts(run.active(), run.active(), [0] * len(counts)))
    assert split.executed - plain.executed == 32 * 2 * without
