import dataclasses
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from product_case import EVEN, assert_close, cases

from dstrun.backend.sparse.kernel import reference
from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry
from dstrun.layer.topology import Topology


@given(layer=cases())
@settings(max_examples=100, **EVEN)
def test_the_products_are_those_of_dense_layers(layer):
    assert_close(layer.products(reference), layer.dense(), layer.magnitudes(), 1e-13)


@given(layer=cases())
@settings(max_examples=20, **EVEN)
def test_in_blocks_the_same(layer):
    with patch.object(reference, "BLOCK", 1):
        in_blocks = layer.products(reference)
    assert_close(in_blocks, layer.dense(), layer.magnitudes(), 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(layer=cases())
@settings(max_examples=15, **EVEN)
def test_sums_are_in_float32_and_rounded_once(dtype, layer):
    layer = layer.to(dtype)
    found = layer.products(reference)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32]
    layer = dataclasses.replace(layer, weight=layer.weight.double()).to(torch.float64)
    eps = torch.finfo(dtype).eps / 2 + 1e-5
    y, dx, dw = layer.magnitudes()
    least = 1e-7  # below the smallest normal number of float16
    assert_close(found, layer.dense(), (y * eps + least, dx * eps + least, dw * 1e-5), 1)


def test_connections_are_split_once_and_anew_where_they_change():
    """The same pattern is split once; one that is rewired, loaded, moved or changed in place is split anew."""
    geometry = ConvGeometry((4, 2, 3, 3), 1, (1, 1), (1, 1), (1, 1))
    layer = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False, dtype=torch.float64)
    positions = torch.arange(0, 72, 5)
    pattern = Pattern(geometry, Topology((4, 2, 3, 3), positions))
    x = torch.randn(2, 5, 5, 3, dtype=torch.float64)
    splits = []
    split = reference._split

    def counted(*words):
        splits.append(words)
        return split(*words)

    def check(positions, expected):
        weight = torch.randn(len(positions), dtype=torch.float64)
        layer.weight.data.zero_().view(-1)[positions] = weight
        for _ in range(2):
            found = reference.forward(geometry, pattern, weight, None, x)
            torch.testing.assert_close(found, layer(x.movedim(-1, 0)).detach().movedim(0, -1))
        assert len(splits) == expected

    with patch.object(reference, "_split", counted):
        check(positions, 1)
        pattern.set(Topology((4, 2, 3, 3), positions + 1))
        check(positions + 1, 2)
        pattern.load_state_dict(Pattern(geometry, Topology((4, 2, 3, 3), positions)).state_dict())
        check(positions, 3)
        pattern.inputs.copy_(Pattern(geometry, Topology((4, 2, 3, 3), positions + 1)).inputs)
        pattern.rows.copy_(Pattern(geometry, Topology((4, 2, 3, 3), positions + 1)).rows)
        check(positions + 1, 4)
        reference.forward(geometry, pattern, torch.randn(len(positions), dtype=x.dtype), None, x[:, 1:])
        assert len(splits) == 5
        with patch.object(reference, "KEPT", 1):
            check(positions + 1, 7)
