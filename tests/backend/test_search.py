import pytest
from torch import nn

from dstrun.backend import search
from dstrun.layer.geometry import geometry


@pytest.mark.parametrize("block", [9, 40, 1 << 20])
@pytest.mark.parametrize(("outputs", "groups"), [(12, 1), (12, 3), (12, 12), (1, 1)])
def test_blocks_of_outputs_are_all_outputs_once_in_order(outputs, groups, block, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", block)
    module = nn.Conv2d(groups, outputs, 3, groups=groups)
    found = list(search._blocks(geometry(module), 9))
    assert [o for first, last in found for o in range(first, last)] == list(range(outputs))
    assert outputs == 1 or max(last - first for first, last in found) <= min(max(1, block // 9), outputs // 2)
    group = outputs // groups
    assert all(first // group == (last - 1) // group or first % group == last % group == 0 for first, last in found)
