import pytest
import torch

from dstrun.subset.uniform import Uniform


@pytest.mark.parametrize(("shape", "groups", "inputs"), [((4, 3), 1, (1, 3)), ((4, 3), 2, (2, 3))])
def test_ones(context, shape, groups, inputs):
    f, g = Uniform().factors(context(shape, groups=groups))
    assert torch.equal(f, torch.ones(inputs))
    assert torch.equal(g, torch.ones(4))
    assert not Uniform.aggregates
