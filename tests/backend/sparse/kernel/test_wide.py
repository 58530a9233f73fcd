"""Rows that do not fit into the cache: blocks change the order of reading and no bit of any result."""

import pytest
import torch
from test_linear import layer

from dstrun.backend.sparse.kernel import wide
from dstrun.backend.sparse.kernel.call import array
from dstrun.backend.sparse.kernel.fast import NO_BIAS
from dstrun.backend.sparse.kernel.linear import multiply, sampled


@pytest.mark.parametrize("samples", [1, 17, 64, 127, 300])
@pytest.mark.parametrize(("outputs", "inputs", "groups"), [(24, 400, 1), (400, 24, 1), (40, 240, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_of_rows_give_the_same_bits(
    samples: int, outputs: int, inputs: int, groups: int, dtype: torch.dtype, rows: int
) -> None:
    torch.manual_seed(0)
    _, pattern, weight = layer(outputs, inputs, groups, 0.5)
    x, delta = torch.randn(inputs, samples).to(dtype), torch.randn(outputs, samples).to(dtype)
    columns, codes, order = pattern.by_input()
    sizes, block = (inputs // groups, outputs // groups, samples), rows * samples * dtype.itemsize
    forward = [array(tensor) for tensor in (pattern.rows, pattern.inputs, weight)]
    backward = [array(tensor) for tensor in (columns, codes, weight[order])]
    bias = array(torch.randn(outputs))
    y, dx, dw = ([torch.full(shape, 7.0, dtype=kind) for _ in range(2)] for shape, kind in (
        (delta.shape, dtype), (x.shape, dtype), (weight.shape, torch.float32)))  # fmt: skip
    for i, (products, dots, more) in enumerate(
        [(multiply, sampled, ()), (wide.multiply_wide, wide.sampled_wide, (block,))]
    ):
        products(tuple(forward), bias, array(x), array(y[i]), sizes, 2, *more)
        products(tuple(backward), NO_BIAS, array(delta), array(dx[i]), (sizes[1], sizes[0], samples), 2, *more)
        dots(tuple(forward[:2]), array(x), array(delta), array(dw[i]), sizes, 2, *more)
    for narrow, blocked in (y, dx, dw):
        assert torch.equal(narrow, blocked)


@pytest.mark.parametrize(
    ("rows", "samples", "degree", "dtype", "found"),
    [
        (16_384, 128, 128, torch.float32, False),  # the widths of image classifiers stay as they are
        (40_000, 128, 128, torch.float32, True),
        (40_000, 128, 128, torch.bfloat16, False),
        (70_000, 128, 128, torch.bfloat16, True),
        (40_000, 200, 128, torch.float32, True),
        (40_000, 128, 7, torch.float32, False),
        (400_000, 32, 128, torch.float32, False),
        (768, 8192, 128, torch.float32, False),  # many items count by their tile
    ],
)
def test_layers_are_wide_where_blocks_pay(
    rows: int, samples: int, degree: int, dtype: torch.dtype, found: bool
) -> None:
    first = array(torch.arange(101) * degree)
    assert wide.is_wide(first, array(torch.empty(rows * samples, dtype=dtype)), samples) == found


@pytest.mark.parametrize(
    ("size", "degree", "blocks"),
    [(1 << 25, 128, 4), (1 << 28, 128, 16), (1 << 29, 128, 21), (1 << 29, 100, 1), (1000, 2, 1)],
)
def test_blocks_are_few_enough_for_the_connections_of_a_target(size: int, degree: int, blocks: int) -> None:
    assert wide.blocks_of(size, 1000 * degree, 1000, 1 << 23) == blocks
    assert wide.blocks_of(size, 0, 0, 1 << 23) == 1
