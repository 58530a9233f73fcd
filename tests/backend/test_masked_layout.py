"""A masked layer whose weight has its channels innermost in memory is the same layer."""

import copy

import pytest
import torch
from test_masked import CRITERIA, MODULES, OPTIMIZERS

from dstrun.backend.masked import sparsify
from dstrun.stream import generator


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
            layer.explore(criterion, None, 5, generator(0, "grow", step))
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
