from itertools import product

import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional

from dstrun.layer.geometry import ConvGeometry, LinearGeometry, geometry, has_geometry
from dstrun.system.stream import generator

CONVS = [
    dict(zip(("kernel_size", "stride", "padding", "dilation", "groups"), values, strict=True))
    for values in product((1, 3, (3, 2)), (1, 2, (3, 2)), (0, 1, (2, 0)), (1, 2), (1, 2, 4))
]


def items(module, x, delta):
    """Unfold in float64: inputs (P, G, I) and output gradients (P, O) of every item."""
    x, delta = x.double(), delta.double()
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, x.shape[-1]), delta.reshape(-1, delta.shape[-1])
    patches = functional.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return (
        patches.transpose(1, 2).reshape(-1, module.groups, patches.shape[1] // module.groups),
        delta.flatten(2).transpose(1, 2).reshape(-1, delta.shape[1]),
    )


def gradient(module, inputs, delta):
    """Return the true weight gradient of the unfolded items, (O, I)."""
    group = torch.arange(delta.shape[1]) // (delta.shape[1] // inputs.shape[1])
    return torch.einsum("po,poi->oi", delta, inputs[:, group])


def example(module, shape, seed=0):
    """Return an input and an output gradient."""
    torch.manual_seed(seed)
    x = torch.randn(shape)
    return x, torch.randn(module(x).shape)


def check_sums(module, shape):
    x, delta = example(module, shape)
    inputs, deltas = items(module, x, delta)
    layer = geometry(module)
    signs = layer.signs(delta, generator(0, "signs"))
    assert signs.numel() == len(deltas)
    assert set(signs.unique().tolist()) <= {-1.0, 1.0}
    s = signs.flatten().double()
    close = {"atol": 1e-4, "rtol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(layer.input_sums(x, None), inputs.abs().sum(0), **close)
    torch.testing.assert_close(layer.output_sums(delta, None), deltas.abs().sum(0), **close)
    torch.testing.assert_close(layer.input_sums(x, signs), torch.einsum("p,pgi->gi", s, inputs), **close)
    torch.testing.assert_close(layer.output_sums(delta, signs), s @ deltas, **close)


@pytest.mark.parametrize("options", CONVS, ids=lambda o: "k{}-s{}-p{}-d{}-g{}".format(*o.values()))
def test_sums_of_a_convolution_are_those_of_its_patches(options):
    check_sums(nn.Conv2d(4, 8, **options), (3, 4, 8, 7))  # strides leave rows over at the border: 8 and 7 are cropped


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 3, 4, 6)])
def test_sums_of_a_linear_layer_go_over_all_leading_dimensions(shape):
    check_sums(nn.Linear(6, 4), shape)


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "linear-3d": (lambda: nn.Linear(5, 4), (2, 3, 5)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 4, 2, groups=2, dilation=2), (2, 4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 2, groups=3), (2, 3, 3, 3)),
}
layers = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def products(module, f, g):
    """Multiply f (..., G, I) and g (..., O) to f g over connections, (..., O, I)."""
    group = torch.arange(g.shape[-1]) // (g.shape[-1] // f.shape[-2])
    return g[..., None] * f[..., group, :]


@layers
def test_grabo_bounds_the_gradient(make, shape):
    module = make()
    x, delta = example(module, shape)
    true = gradient(module, *items(module, x, delta)).abs()
    layer = geometry(module)
    bound = products(module, layer.input_sums(x, None), layer.output_sums(delta, None))
    assert bool((true <= bound * (1 + 1e-5)).all())
    assert bool((true < bound * 0.9).any())


@pytest.mark.parametrize(
    ("module", "shape"),
    [(nn.Linear(5, 4), (1, 5)), (nn.Conv2d(4, 4, 3, groups=2), (1, 4, 3, 3))],
    ids=["linear", "one output position"],
)
def test_grabo_is_exact_for_a_single_item(module, shape):
    x, delta = example(module, shape)
    true = gradient(module, *items(module, x, delta)).abs()
    layer = geometry(module)
    bound = products(module, layer.input_sums(x, None), layer.output_sums(delta, None))
    torch.testing.assert_close(bound.double(), true)


@layers
def test_graest_is_unbiased(make, shape):
    module, draws = make(), 2000
    x, delta = example(module, shape)
    layer, stream = geometry(module), generator(0, "signs")
    f, g = [], []
    for _ in range(draws):
        signs = layer.signs(delta, stream)
        f.append(layer.input_sums(x, signs))
        g.append(layer.output_sums(delta, signs))
    estimates = products(module, torch.stack(f).double(), torch.stack(g).double())
    true = gradient(module, *items(module, x, delta))
    z = (estimates.mean(0) - true) / (estimates.std(0) / draws**0.5)
    assert z.abs().max() < norm.isf(1e-3 / 2 / true.numel())  # Bonferroni over the connections
    assert true.abs().max() > 10 * (estimates.std(0) / draws**0.5).mean()  # zero would not pass


@pytest.mark.parametrize(
    ("groups", "first", "last"), [(1, 0, 8), (1, 3, 5), (2, 5, 7), (2, 0, 8), (2, 4, 8), (4, 3, 4), (4, 2, 6)]
)
def test_the_gradient_of_some_outputs_of_a_group_or_of_whole_groups(groups, first, last):
    module = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups)
    x, delta = example(module, (3, 4, 8, 7))
    found = geometry(module).weight_gradient(x, delta, first, last)
    true = gradient(module, *items(module, x, delta))[first:last]
    torch.testing.assert_close(found.flatten(1), true, atol=1e-4, rtol=1e-5, check_dtype=False)


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Conv2d(3, 2, 1)])
def test_signs_follow_the_stream(module):
    delta = torch.zeros(16, 2, 4, 4) if isinstance(module, nn.Conv2d) else torch.zeros(256, 2)
    layer = geometry(module)
    first, again, other = (layer.signs(delta, generator(0, *name)) for name in (("a", 1), ("a", 1), ("a", 2)))
    assert torch.equal(first, again)
    assert abs((first * other).mean()) < 4 / 16
    assert abs(first.mean()) < 4 / 16


def test_geometry_of_a_module():
    assert geometry(nn.Linear(3, 2)) == LinearGeometry((2, 3))
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=2, groups=2)
    assert geometry(conv) == ConvGeometry((6, 2, 3, 2), 2, (2, 1), (1, 1), (2, 2))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, (3, 2), padding="same"),
        nn.ConvTranspose2d(2, 2, 3),
        nn.Conv3d(2, 2, 3),
        nn.ReLU(),
    ],
)
def test_no_geometry_of_other_modules(module):
    assert not has_geometry(module)
    with pytest.raises(TypeError, match="cannot make a sparse layer from"):
        geometry(module)


@pytest.mark.parametrize(("named", "padding"), [("same", (2, 1)), ("valid", (0, 0))])
def test_a_padding_that_is_named(named, padding):
    by_name = nn.Conv2d(2, 3, (5, 2), dilation=(1, 2), padding=named)
    by_number = nn.Conv2d(2, 3, (5, 2), dilation=(1, 2), padding=padding)
    assert geometry(by_name) == geometry(by_number)
    x = torch.randn(2, 2, 6, 7)
    torch.testing.assert_close(by_name(x).shape, by_number(x).shape)


CONV1DS = [
    dict(zip(("kernel_size", "stride", "padding", "dilation", "groups"), values, strict=True))
    for values in product((1, 3), (1, 2), (0, 2), (1, 2), (1, 4))
]


@pytest.mark.parametrize("options", CONV1DS, ids=lambda o: "k{}-s{}-p{}-d{}-g{}".format(*o.values()))
def test_a_1d_convolution_is_one_of_a_single_row(options):
    module = nn.Conv1d(4, 8, bias=False, **options)
    x, delta = example(module, (3, 4, 9))
    row = nn.Conv2d(4, 8, (1, module.kernel_size[0]), bias=False)
    row.stride, row.padding, row.dilation = (1, module.stride[0]), (0, module.padding[0]), (1, module.dilation[0])
    row.groups, row.weight = module.groups, nn.Parameter(module.weight.detach()[:, :, None])
    torch.testing.assert_close(row(x[:, :, None])[:, :, 0], module(x))
    inputs, deltas = items(row, x[:, :, None], delta[:, :, None])
    layer = geometry(module)
    assert layer.shape == module.weight.shape
    signs = layer.signs(delta, generator(0, "signs"))
    s, close = signs.flatten().double(), {"atol": 1e-4, "rtol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(layer.input_sums(x, None), inputs.abs().sum(0), **close)
    torch.testing.assert_close(layer.output_sums(delta, None), deltas.abs().sum(0), **close)
    torch.testing.assert_close(layer.input_sums(x, signs), torch.einsum("p,pgi->gi", s, inputs), **close)
    torch.testing.assert_close(layer.output_sums(delta, signs), s @ deltas, **close)
    found = layer.weight_gradient(x, delta, 6, 8)
    torch.testing.assert_close(found.flatten(1), gradient(row, inputs, deltas)[6:], **close)
