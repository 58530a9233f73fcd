import pytest
import torch
from torch import nn

from dstrun.model.vgg import VGG16, VGG19
from dstrun.system.trouble import ConfigError

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(("classes", "prunable", "macs"), [(10, 1_252_528, 20_239_360), (100, 1_298_608, 20_285_440)])
def test_vgg16_small_counts(count, classes, prunable, macs):
    found = count(VGG16(base=16), CIFAR, classes)
    assert (found.layers, found.prunable, found.macs) == (16, prunable, macs)


def test_layers_in_order():
    model = VGG16(base=16).build(CIFAR, 10)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [16] * 2 + [32] * 2 + [64] * 3 + [128] * 6
    assert all(c.bias is not None for c in convs)
    assert [m.weight.shape for m in model.classifier if isinstance(m, nn.Linear)] == [(512, 128), (512, 512), (10, 512)]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_vgg16_has_64_channels_first_and_512_hidden(count):
    # 14,710,464 in the thirteen convolutions of Simonyan, Zisserman 2014 (without biases), the rest linear.
    assert count(VGG16(base=64), CIFAR, 10).prunable == 14_710_464 + 512 * 512 + 512 * 512 + 512 * 10


def test_width_scales_convolutions_and_hidden_layers():
    model = VGG16(base=16, width=0.7).build(CIFAR, 10)
    assert model.features[0].out_channels == 11
    assert model.classifier[0].weight.shape == (358, 89)


def test_gradients_flow(learns):
    learns(VGG16(base=4), CIFAR, 10, batch=8)


def test_larger_images_are_averaged(count):
    assert count(VGG16(base=16), (3, 64, 64), 10).prunable == 1_252_528


def test_relu_in_place_leaves_what_backward_needs():
    torch.manual_seed(0)
    model = VGG16(base=2).build(CIFAR, 3).double().eval()
    x = torch.randn(2, *CIFAR, dtype=torch.double)
    weight = model.features[0].weight
    step = 1e-6 * torch.randn_like(weight)
    model(x).sum().backward()
    with torch.no_grad():
        weight += step
        above = model(x).sum()
        weight -= 2 * step
        below = model(x).sum()
    assert weight.grad is not None
    torch.testing.assert_close((weight.grad * 2 * step).sum(), above - below, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("image", [(1, 8, 8), (3, 32, 31)])
def test_smaller_images_are_refused(image):
    with pytest.raises(ConfigError, match=rf"vgg16_small need images of at least 32x32, not .* {image[1]}x{image[2]}:"):
        VGG16(base=16).build(image, 10)


@pytest.mark.parametrize(
    ("classes", "prunable", "total"), [(10, 20_024_000, 20_035_018), (100, 20_070_080, 20_081_188)]
)
def test_vgg19_counts(count, classes, prunable, total):
    found = count(VGG19(), CIFAR, classes)
    assert (found.layers, found.prunable, found.total) == (17, prunable, total)  # 20.04 M
    assert found.macs == 398_131_200 + 512 * classes
    assert count(VGG19(), (3, 64, 64), classes).total == total


def test_vgg19_layers_in_order():
    model = VGG19(width=0.125).build(CIFAR, 10)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [8] * 2 + [16] * 2 + [32] * 4 + [64] * 8
    assert all(c.bias is None for c in convs)
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.features) == 4
    assert convs[-1].weight.var().item() == pytest.approx(2 / (9 * 64), rel=0.05)
    assert model.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_vgg19_gradients_flow_and_smaller_images_are_refused(learns):
    learns(VGG19(width=0.125), (1, 16, 16), 10, batch=8)
    with pytest.raises(ConfigError, match=r"^model=vgg19 needs images of at least 16x16, not .* 16x15:"):
        VGG19().build((1, 16, 15), 10)
