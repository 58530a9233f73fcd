import math

import pytest
import torch
from hypothesis import given, settings
from product_case import EVEN, cases

from dstrun.backend.sparse.kernel.transpose import by_sorting
from dstrun.backend.sparse.pattern import Pattern, index_type
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.topology import Topology


@given(layer=cases())
@settings(max_examples=100, **EVEN)
def test_every_connection_is_named_once_by_output_and_once_by_input(layer):
    g, pattern, positions = layer.geometry, layer.pattern, layer.topology.positions
    out, channels, *kernel = g.shape
    taps, outputs = math.prod(kernel), out // g.groups
    assert torch.equal(pattern.topology().positions, positions)
    assert (pattern.count, pattern.channels) == (positions.numel(), channels * g.groups)
    rows = torch.repeat_interleave(torch.arange(out), pattern.rows.long().diff())
    assert torch.equal(rows * channels * taps + pattern.inputs.long(), positions)
    columns, codes, order = (tensor.long() for tensor in pattern.by_input())
    assert columns.diff().sum() == positions.numel()
    channel = torch.repeat_interleave(torch.arange(pattern.channels), columns.diff())
    output = channel // channels * outputs + codes // taps
    by_input = (output * channels + channel % channels) * taps + codes % taps
    assert torch.equal(by_input, positions[order])
    assert sorted(order.tolist()) == list(range(positions.numel()))


@given(layer=cases())
@settings(max_examples=100, **EVEN)
def test_sorting_gives_what_counting_gives(layer):
    g, pattern = layer.geometry, layer.pattern
    sizes = g.shape[1], g.shape[0] // g.groups
    found = by_sorting(pattern.rows, pattern.inputs, pattern.taps, pattern.channels, *sizes)
    for ours, theirs in zip(found, pattern.by_input(), strict=True):
        assert torch.equal(ours.long(), theirs.long())


def test_the_smallest_types():
    assert [index_type(n) for n in (1, 1 << 15, (1 << 15) + 1, 1 << 31)] == [
        torch.int16,
        torch.int16,
        torch.int32,
        torch.int64,
    ]
    pattern = Pattern(LinearGeometry((2, 1 << 15)), Topology((2, 1 << 15), torch.tensor([0, (1 << 16) - 1])))
    assert pattern.inputs.tolist() == [0, (1 << 15) - 1]
    assert pattern.topology().positions.tolist() == [0, (1 << 16) - 1]


def pattern_of(shape, positions):
    return Pattern(LinearGeometry(shape), Topology(shape, torch.tensor(positions)))


def test_another_count_is_loaded():
    other = pattern_of((3, 4), [0, 5, 6, 11])
    pattern = pattern_of((3, 4), [7])
    pattern.load_state_dict(other.state_dict())
    for a, b in zip(pattern.tensors(), other.tensors(), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (3, 70_000)], ids=str)
def test_positions_of_another_layer_are_refused_and_change_nothing(shape):
    pattern = pattern_of((3, 4), [0, 11])
    with pytest.raises(RuntimeError, match="not positions of a weight"):
        pattern.load_state_dict(pattern_of(shape, [0, 4, 14]).state_dict())
    assert pattern.topology().positions.tolist() == [0, 11]


@pytest.mark.parametrize(
    "rows", [[0, 1, 1, 3], [1, 1, 1, 2], [0, 2, 1, 2]], ids=["too many", "not from the first", "backwards"]
)
def test_damaged_rows_are_refused(rows):
    pattern = pattern_of((3, 4), [0, 11])
    state = {"rows": torch.tensor(rows, dtype=torch.int32), "inputs": torch.tensor([0, 3], dtype=torch.int16)}
    with pytest.raises(RuntimeError, match="not positions of a weight"):
        pattern.load_state_dict(state)
