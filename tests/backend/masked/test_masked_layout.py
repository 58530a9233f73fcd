"""A masked layer whose weight has its channels innermost in memory is the same layer."""

import copy

import pytest
import torch
from masked_case import CRITERIA, MODULES, OPTIMIZERS
from torch import nn

from dstrun.backend.masked.layer import sparsify, wrap
from dstrun.layer.growth import GrowthRequest
from dstrun.system.stream import generator


def lived(make, shape, criterion, layout):
    """Train a layer a few steps through two updates; give all that can be asked of it, tensors in logical order."""
    module = make().double().to(memory_format=layout)
    (layer,) = sparsify(module, [round(0.4 * module.weight.numel())], 0)
    assert layer.weight.is_contiguous(memory_format=layout)
    layer.optimizer = OPTIMIZERS["sgd"].build(module.parameters())
    found = [layer.values(), layer.idle]
    for step in range(4):
        torch.manual_seed(step)
        if step % 2:
            layer.request_growth(GrowthRequest(criterion, 5, generator(0, "grow", step)))
        module(torch.randn(shape, dtype=torch.float64)).square().sum().backward()
        found += [layer.grad(), layer.dense_grad().clone()]
        if step % 2:
            proposal = layer.proposal()
            found += [proposal.positions, proposal.scores]
            layer.rewire(layer.topology.positions[: len(proposal.positions)], proposal.positions)
            module.zero_grad()
        else:
            layer.add_gradient(torch.linspace(-1, 1, layer.count, dtype=torch.float64))
            layer.confine_gradient()
            layer.optimizer.step()
            module.zero_grad()
        found += [layer.weight.detach().clone(), layer.values(), layer.mask, layer.ever.clone()]
    layer.set_values(layer.values() * 2)
    state = [state["momentum_buffer"] for state in layer.optimizer.state.values()]
    return [*found, layer.weight.detach(), layer.topology.positions, *state]


@pytest.mark.parametrize("criterion", ["gradient", "uniform", "grabo"])
@pytest.mark.parametrize("name", ["conv", "strided", "grouped", "depthwise"])
def test_channels_innermost_change_nothing(name, criterion):
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module = make()
    layouts = torch.contiguous_format, torch.channels_last
    one, other = (lived(lambda: copy.deepcopy(module), shape, CRITERIA[criterion], layout) for layout in layouts)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.contiguous(), b.contiguous())


STORED = {
    "transposed": lambda: torch.randn(5, 3).t(),
    "with gaps": lambda: torch.randn(3, 10)[:, ::2],
    "from the middle": lambda: torch.randn(5, 5)[1:4],
    "a convolution's, turned": lambda: torch.randn(2, 2, 4, 3).permute(3, 2, 1, 0),
    "a convolution's, with gaps": lambda: torch.randn(3, 8, 2, 2)[:, ::2],
}


@pytest.mark.parametrize("name", STORED)
def test_weights_that_a_network_stores_otherwise(name):
    """Nothing is read from, or written to, where another weight is."""
    torch.manual_seed(0)
    weight = STORED[name]()
    module = nn.Linear(5, 3, bias=False) if weight.dim() == 2 else nn.Conv2d(4, 3, 2, bias=False)
    module.weight = nn.Parameter(weight)
    (layer,) = wrap(module, torch.device("cpu"))
    assert torch.equal(layer.values(), weight.flatten())
    gone = layer.topology.positions[[1, 7]]
    layer.rewire(gone, gone[:0])
    expected = weight.flatten().index_fill(0, gone, 0)
    assert torch.equal(layer.weight.flatten(), expected)
    assert layer.mask.flatten().logical_not().nonzero().flatten().tolist() == gone.tolist()
    assert torch.equal(layer.values(), expected[layer.topology.positions])
