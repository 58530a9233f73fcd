import dataclasses
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from product_case import EVEN, assert_close, cases

from dstrun.backend.sparse.kernel import reference


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
