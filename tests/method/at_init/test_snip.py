import json
import logging

import pytest
import torch
from small_run import SMALL
from torch import nn

from dstrun.config.composition import compose
from dstrun.layer.criterion import Cost
from dstrun.layer.selection import highest
from dstrun.method.at_init.once import parts
from dstrun.method.at_init.snip import SNIP
from dstrun.method.pruning import EmptyLayer
from dstrun.run.lifecycle import run

# |w g|:  0.5   0.8   0.4   0.09 | 0.02  0.04  0.3   0.03
A = [0.5, -0.1, 0.2, -0.9]
B = [1.0, 2.0, -3.0, 0.3]
GRADIENT = torch.tensor([1.0, 8.0, -2.0, 0.1, 0.02, 0.02, 0.1, -0.1])
REFUSED = "no connection would be left in {}, and strict=true refuses that"


def loss(weights, labels):
    return (weights * GRADIENT).sum()


def test_eight_weights_by_hand_among_all(beside):
    made = beside(A, B, loss, budget=4)
    update = SNIP().procedure(made.setting).prepare()
    assert made.kept() == [[0, 1, 2], [2]]
    assert [layer.values().tolist() for layer in made.layers] == [pytest.approx([0.5, -0.1, 0.2]), [-3.0]]
    assert (update.step, update.cost, update.replaces_step, update.samples) == (0, Cost.DENSE_GRAD, False, 2)
    assert [(c.active, c.pruned, c.grown) for c in update.changes] == [(3, 1, 0), (1, 3, 0)]


def test_eight_weights_by_hand_in_each_layer(beside):
    made = beside(A, B, loss, counts=[1, 3], budget=4)
    SNIP().procedure(made.setting).prepare()
    assert made.kept() == [[1], [1, 2, 3]]


def test_the_batch_is_the_first_and_as_large_as_said(beside):
    made = beside(A, B, loss, budget=4)
    SNIP(samples_per_class=7).procedure(made.setting).prepare()
    assert made.drawn == [(0, 7)]
    assert SNIP(samples_per_class=7, rounds=3).scored_samples(10) == 210


def test_normalising_by_the_sum_changes_no_order():
    for seed in range(20):
        scores = torch.rand(500, generator=torch.Generator().manual_seed(seed)) ** 8
        assert torch.equal(highest(scores, 50), highest(scores / scores.sum(), 50))


def test_a_layer_may_be_emptied_with_a_warning(beside, caplog):
    made = beside(A, B, loss, budget=3)
    with caplog.at_level(logging.WARNING, "dstrun"):
        SNIP().procedure(made.setting).prepare()
    assert made.kept() == [[0, 1, 2], []]
    assert caplog.messages == ["no connection is left in b, 1 of 2 layers: only biases and shortcuts pass there"]


def test_strict_refuses_to_empty_a_layer_and_prunes_nothing(beside):
    made = beside(A, B, loss, budget=3, strict=True)
    with pytest.raises(EmptyLayer) as error:
        SNIP().procedure(made.setting).prepare()
    assert str(error.value) == REFUSED.format("b, 1 of 2 layers")
    assert made.kept() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_strict_run_that_would_empty_a_layer_ends_as_failed(tmp_path, capfd):
    words = [*SMALL, "method=snip", "sparsity=0.9999", "strict=true", f"results={tmp_path}", "threads=1"]
    outcome = run(compose(words))
    status = json.loads((outcome.folder.path / "status.json").read_text())
    assert outcome.state == status["state"] == "failed"
    assert outcome.message == status["message"] == REFUSED.format("fc1, fc2, 2 of 3 layers")


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )


def samples(step, per_class):
    draws = torch.Generator().manual_seed(step)
    y = torch.arange(3).repeat_interleave(per_class)
    return torch.randn(len(y), 1, 4, 4, generator=draws), y


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_running_statistics_dropout_and_every_random_stream_stay_as_they_are(scored, statistics):
    made = scored(network(), samples, classes=3)
    buffers = {name: buffer.clone() for name, buffer in made.net.named_buffers()}
    before = torch.get_rng_state()
    first, _ = SNIP(statistics=statistics).score(made.setting)
    made.net.zero_grad()
    again, _ = SNIP(statistics=statistics).score(made.setting)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(buffers[name], buffer) for name, buffer in made.net.named_buffers())
    assert all(module.training for module in made.net.modules())
    assert made.net[1].track_running_stats


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_normalises_by_the_statistics_asked_for(scored, statistics):
    """In a fresh network those that run are 0 and 1, so that normalization changes nothing."""
    made = scored(network(), samples, classes=3)
    scores, _ = SNIP(statistics=statistics).score(made.setting)
    made.net.zero_grad()
    made.net[3].p = 0.0
    if statistics == "running":
        made.net[1] = nn.BatchNorm2d(4, eps=made.net[1].eps).eval()
    x, y = samples(0, 10)
    nn.functional.cross_entropy(made.net(x), y).backward()
    for layer, score in zip(made.layers, scores, strict=True):
        assert torch.allclose(score, (layer.weight * layer.weight.grad).abs().flatten())


def test_parts_make_up_the_batch_with_every_class_in_each(scored):
    made = scored(network(), samples, classes=3)
    drawn = list(parts(SNIP(samples_per_class=4, rounds=2, splits=3), made.setting))
    assert len(drawn) == 6
    assert sum(share for *_, share in drawn) == pytest.approx(1)
    assert all(set(y.tolist()) == {0, 1, 2} for _, y, _ in drawn)
    whole = torch.cat([samples(0, 4)[0], samples(1, 4)[0]])
    together = torch.cat([x for x, *_ in drawn])
    assert torch.equal(together.flatten().sort().values, whole.flatten().sort().values)


def test_splits_of_a_network_without_batch_statistics_change_nothing(scored):
    def score(**fields):
        torch.manual_seed(2)
        made = scored(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), samples, classes=3)
        return SNIP(samples_per_class=5, **fields).score(made.setting)

    (whole,), count = score()
    (split,), passed = score(splits=4)
    assert count == passed == 15
    assert torch.allclose(whole, split, atol=1e-6)
    assert not torch.allclose(whole, score(rounds=2)[0][0], atol=1e-6)
    assert score(splits=99)[1] == 15
