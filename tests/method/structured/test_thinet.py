from itertools import combinations

import pytest
import torch
from method_setting import setting
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.structured.thinet import Reconstruction, ThiNet, choose, contributions, rescale
from dstrun.run.assemble import assemble
from dstrun.run.plan import plan
from dstrun.system.stream import generator
from dstrun.system.trouble import ConfigError

WORDS = ["method=thinet", "dataset=digits", "model=resnet20", "model.width=0.25", "epochs=2", "threads=1"]


def test_four_channels_by_hand():
    """Two outputs. Sums of squares: channel 0: 2, 1: 2, 2: 9, 3: 5.

    0 and 1 tie, the first goes; with it 1 leaves (1 - 1)^2 + (1 - 1)^2 = 0, 2 leaves 1 + 16 and 3 leaves 4 + 9.
    """
    parts = torch.tensor([[1.0, -1.0, 0.0, 1.0], [1.0, -1.0, 3.0, 2.0]])
    removed, scale = choose(parts, 2)
    assert removed.tolist() == [0, 1]
    assert scale.tolist() == pytest.approx([0, 0, 1, 1])  # nothing is missing
    removed, scale = choose(parts, 1)
    assert removed.tolist() == [0, 1, 3]
    assert scale.tolist() == pytest.approx([0, 0, 5 / 3, 0])  # 0 w = 1 and 3 w = 5


@pytest.mark.parametrize("seed", range(5))
def test_every_greedy_step_is_the_best_by_brute_force_and_so_is_the_scale(seed):
    parts = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    removed, scale = choose(parts, 2)
    gone: list[int] = []
    for chosen in removed.tolist():
        errors = {c: parts[:, [*gone, c]].sum(1).square().sum().item() for c in range(6) if c not in gone}
        assert chosen == min(errors, key=errors.__getitem__)
        gone.append(chosen)
    stays = sorted({*range(6)} - {*gone})
    best = torch.linalg.lstsq(parts[:, stays], parts.sum(1, keepdim=True)).solution[:, 0]
    torch.testing.assert_close(scale[stays], best)
    pairs = {pair: parts[:, list(pair)].sum(1).square().sum() for pair in combinations(range(6), 1)}
    assert (int(removed[0]),) == min(pairs, key=pairs.__getitem__)


def test_silent_channels_go_first_and_leave_the_others_as_they_are():
    parts = torch.randn(20, 4)
    parts[:, [1, 2]] = 0
    removed, scale = choose(parts, 3)
    assert removed.tolist() == [1]
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("module", "x", "channels"),
    [
        (nn.Conv2d(3, 5, 3, padding=1, stride=2), torch.randn(70, 3, 6, 6), 3),
        (nn.Conv2d(3, 5, (1, 3), padding=(0, 2), dilation=2), torch.randn(4, 3, 5, 5), 3),
        (nn.Linear(12, 4), torch.randn(6, 12), 3),
        (nn.Linear(6, 4), torch.randn(6, 7, 6), 6),
    ],
)
def test_contributions_are_the_parts_of_outputs(module, x, channels):
    """Their sum over channels is an output without bias; with all but one channel silent, that channel's part."""
    nn.init.zeros_(module.bias)
    parts = contributions(module, x, channels, 9, generator(0, "a"))
    outputs = module(x).detach()
    assert parts.shape == (9 * len(x), channels)
    for sample, one in enumerate(parts.sum(1).view(len(x), 9)):
        there = outputs[sample].flatten()
        assert all(torch.isclose(there, value, atol=1e-5).any() for value in one)
    silent = x.clone()
    axis = -1 if isinstance(module, nn.Linear) else 1
    silent.unflatten(axis, (channels, -1)).movedim(axis if axis == 1 else silent.ndim - 1, 0)[1:] = 0
    alone = contributions(module, silent, channels, 9, generator(0, "a"))
    torch.testing.assert_close(alone[:, 0], parts[:, 0])
    assert not alone[:, 1:].any()


def test_rescaling_multiplies_what_reads_a_channel():
    module = nn.Linear(4, 2, bias=False)
    before = module.weight.detach().clone()
    rescale(module, torch.tensor([2.0, 0.5]))
    assert torch.equal(module.weight.detach(), before * torch.tensor([2.0, 2.0, 0.5, 0.5]))


def test_it_removes_after_the_dense_training_what_is_missed_least():
    """Hidden unit 1 is silent, 3 a copy of 2: with half of the channels the outputs stay as they were."""
    net = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]]))
        net[2].weight.copy_(torch.tensor([[1.0, 1, 2, 1], [2, 1, 2, 1]]))
    layers = masked.wrap(net, torch.device("cpu"))
    x = torch.rand(40, 2)
    run = {"budget": 8, "total_steps": 30, "nominal_steps": 20, "model": net}
    procedure = Reconstruction(setting(layers, samples=lambda step, n: (x, torch.zeros(40)), **run), 4, 5, 0.01)
    expected = net(x).detach()
    assert [s for s in range(1, 31) if procedure.updates_at(s)] == [20]
    assert procedure.after_step(19) is None
    update = procedure.after_step(20)
    assert [(c.active, c.pruned) for c in update.changes] == [(4, 4), (4, 4)]
    assert update.samples == 14
    assert layers[0].topology.positions.tolist() == [0, 1, 4, 5]
    assert layers[1].topology.positions.tolist() == [0, 2, 4, 6]
    torch.testing.assert_close(net(x), expected)
    assert net[2].weight.tolist() == [pytest.approx([1, 0, 3, 0], abs=1e-5), pytest.approx([2, 0, 3, 0], abs=1e-5)]
    assert procedure.rate_at(19, 30) == (19, 20) == procedure.rate_at(29, 30)


@pytest.mark.parametrize(("epochs", "whole"), [(1, 2), (10, 11), (200, 220)])
def test_the_run_is_a_share_longer(epochs, whole):
    assert ThiNet(finetune=0.1).epochs(epochs, 0.5) == whole


@pytest.mark.parametrize("powerprop", [1, 2])
def test_plan_and_run_agree(powerprop):
    made = compose([*WORDS, "sparsity=0.8", f"powerprop={powerprop}"])
    planned, training = plan(made), assemble(made, torch.device("cpu"))
    training.model.train()
    while training.step < training.total_steps:
        training.take_step()
    active = training.active()
    assert [layer["active"] for layer in planned["layers"]] == active
    assert sum(active) <= round(0.2 * sum(training.sizes))
    record = training.flops.record(active, training.nominal_steps * made.config["batch_size"])
    assert {key: planned["flops"][key] for key in record} == record
    assert planned["flops"]["updates"] == training.updates == 1


WHY = "makes no sense with method=thinet, which removes channels, the same share in every layer"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["allocation=erk"], f"allocation=erk {WHY}"),
        (["scope=global"], f"scope=global {WHY}"),
        (["prune=magnitude"], f"prune=magnitude {WHY}"),
        (["method.finetune=0"], "method.finetune=0 must be above 0"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(ConfigError) as error:
        compose(["method=thinet", *words])
    assert str(error.value) == message


def test_what_whole_channels_cannot_reach_is_refused_at_the_start():
    made = compose([*WORDS, "sparsity=0.97"])
    for start in (plan, lambda e: assemble(e, torch.device("cpu"))):
        with pytest.raises(ConfigError, match=r"^sparsity=0\.97 makes no sense with method=thinet on this network: "):
            start(made)
