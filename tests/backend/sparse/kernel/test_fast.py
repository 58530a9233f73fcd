import dataclasses
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from product_case import EVEN, assert_close, case, cases, linear

from dstrun.backend.sparse.kernel import fast, kernel_for, reference
from dstrun.layer.geometry import ConvGeometry, LinearGeometry
from dstrun.layer.topology import Topology

LANES = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 79, 80, 100, 127, 128, 129, 191, 192, 200, 256, 300]


def bits(tensors):
    return [t.contiguous().view(torch.uint8) if t.numel() else t for t in tensors]


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(bits(a), bits(b), strict=True))


def chosen(total, count, seed=0):
    return Topology.random((total,), count, torch.Generator().manual_seed(seed)).positions


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@given(layer=cases())
@settings(max_examples=250, **EVEN)
def test_the_products_are_those_of_the_reference(layer):
    layer = layer.to(torch.float32)
    assert_close(layer.products(fast), layer.products(reference), layer.magnitudes(), 1e-5)


@pytest.mark.parametrize("samples", LANES)
def test_linear_layers_of_every_batch(samples):
    layer = linear(40, 23, samples, chosen(40 * 23, 200)).to(torch.float32)
    assert_close(layer.products(fast), layer.dense(), layer.magnitudes(), 1e-5)


@given(layer=cases())
@settings(max_examples=60, **EVEN)
def test_bfloat16_is_rounded_once(layer):
    layer = layer.to(torch.bfloat16)
    wide = layer.to(torch.float32)
    y, dx, dw = wide.magnitudes()
    true_y, true_dx, _ = wide.products(reference)
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert_close(
        layer.products(fast),
        wide.products(reference),
        (y * 1e-5 + true_y.abs() * rounding, dx * 1e-5 + true_dx.abs() * rounding, dw * 1e-5),
        1.001,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(layer=cases())
@settings(max_examples=40, **EVEN)
def test_what_is_not_finite_goes_where_connections_take_it(value, dtype, layer):
    layer = layer.to(dtype)
    for tensor, seed in ((layer.x, 0), (layer.delta, 1), (layer.weight, 2)):
        if tensor.numel():
            at = torch.randint(tensor.numel(), (2,), generator=torch.Generator().manual_seed(seed))
            tensor.view(-1)[at[0]] = value
            tensor.view(-1)[at[1]] = 0
    for found, true in zip(layer.products(fast), layer.products(reference), strict=True):
        assert torch.equal(found.isnan(), true.isnan())
        assert torch.equal(found.isposinf(), true.isposinf())
        assert torch.equal(found.isneginf(), true.isneginf())


@given(layer=cases())
@settings(max_examples=40, **EVEN)
def test_the_same_bits_on_one_thread_and_two_and_again(layer):
    layer, before = layer.to(torch.float32), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = layer.products(fast)
        torch.set_num_threads(2)
        assert same_bits(one, layer.products(fast))
        assert same_bits(one, layer.products(fast))
    finally:
        torch.set_num_threads(before)


def test_many_threads_and_few_outputs(threads):
    """More shares of work than outputs, and outputs of very different sizes."""
    positions = torch.cat([torch.tensor([3]), torch.arange(64, 128), torch.tensor([130, 255])])
    layer = linear(64, 4, 70, positions).to(torch.float32)
    threads(1)
    one = layer.products(fast)
    assert_close(one, layer.dense(), layer.magnitudes(), 1e-5)
    threads(7)
    assert same_bits(one, layer.products(fast))


@pytest.mark.parametrize("samples", [1, 5, 16, 70, 150])
@pytest.mark.parametrize("padding", [(0, 1), (1, 0), (1, 1)])
def test_a_single_tap_on_a_single_position_may_see_only_padding(padding, samples):
    geometry = ConvGeometry((2, 3, 1, 1), 1, (3, 3), padding, (1, 1))
    layer = case(geometry, (1, 1), samples, torch.arange(6)).to(torch.float32)
    assert_close(layer.products(fast), layer.dense(), layer.magnitudes(), 1e-6)


@pytest.mark.parametrize("shape", [(70_000, 2), (2, 70_000)])
def test_more_inputs_or_outputs_than_16_bits_number(shape):
    layer = linear(shape[1], shape[0], 3, chosen(140_000, 500)).to(torch.float32)
    assert {layer.pattern.inputs.dtype, layer.pattern.by_input()[1].dtype} == {torch.int16, torch.int32}
    assert_close(layer.products(fast), layer.products(reference), layer.magnitudes(), 1e-5)


def test_candidates_need_not_be_the_active_connections():
    layer = case(ConvGeometry((4, 3, 3, 3), 1, (2, 1), (1, 1), (1, 1)), (6, 7), 20, chosen(108, 11)).to(torch.float32)
    others = dataclasses.replace(layer, topology=Topology((4, 3, 3, 3), torch.arange(108)))
    pattern = others.pattern
    found = fast.weight_gradient(layer.geometry, pattern.rows, pattern.inputs, layer.x, layer.delta)
    torch.testing.assert_close(found, _all_gradients(layer), rtol=1e-4, atol=1e-4)


def _all_gradients(layer):
    g = layer.geometry
    return torch.nn.grad.conv2d_weight(
        layer.x.permute(3, 0, 1, 2), g.shape, layer.delta.permute(3, 0, 1, 2), g.stride, g.padding, g.dilation, g.groups
    ).flatten()


CPU = torch.device("cpu")
LINEAR = LinearGeometry((2, 3)).as_convolution()


@pytest.mark.parametrize(
    ("device", "dtype"), [*product([CPU], [torch.float16, torch.float64]), (torch.device("meta"), torch.float32)]
)
def test_what_the_fast_kernels_do_not_take_is_refused(device, dtype):
    with pytest.raises(TypeError, match=f"not {dtype} on {device.type}"):
        kernel_for(LINEAR, torch.empty(0, dtype=dtype, device=device), "fast")
    assert kernel_for(LINEAR, torch.empty(0, dtype=dtype, device=device)) is reference
    assert kernel_for(LINEAR, torch.empty(0)) is kernel_for(LINEAR, torch.empty(0, dtype=torch.bfloat16)) is fast
    assert kernel_for(LINEAR, torch.empty(0), "reference") is reference


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_only_floating_types(dtype):
    with pytest.raises(TypeError, match="floating-point"):
        kernel_for(LINEAR, torch.empty(0, dtype=dtype))
