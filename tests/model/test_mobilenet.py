import pytest
from torch import nn

from dstrun.layer.interface import prunable
from dstrun.model.mobilenet import MobileNetV1

IMAGENET = (3, 224, 224)


def test_counts(count):
    found = count(MobileNetV1(), IMAGENET, 1000)
    assert (found.layers, found.prunable, found.total) == (28, 4_209_088, 4_231_976)
    assert found.macs == 568_740_352  # 569 million: Howard et al. 2017, table 4


@pytest.mark.parametrize(("width", "millions", "macs"), [(0.75, "2.6", 325), (0.5, "1.3", 149), (0.25, "0.5", 41)])
def test_counts_of_thinner_ones(count, width, millions, macs):
    """Howard et al. 2017, table 6."""
    found = count(MobileNetV1(width=width), IMAGENET, 1000)
    assert (f"{found.total / 1e6:.1f}", round(found.macs / 1e6)) == (millions, macs)


@pytest.mark.parametrize(("dense", "layers", "weights"), [(True, 15, 4_164_448), (False, 28, 4_209_088)])
def test_depthwise_convolutions_are_pruned_only_if_asked(dense, layers, weights):
    model = MobileNetV1(dense_depthwise=dense).build(IMAGENET, 1000)
    found = prunable(model)
    assert (len(found), sum(m.weight.numel() for _, m in found)) == (layers, weights)
    deep = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(deep) == 13
    assert all(m.groups == m.in_channels == m.out_channels for m in deep)


@pytest.mark.parametrize("image", [(3, 64, 64), (1, 8, 8)])
def test_gradients_flow(learns, image):
    learns(MobileNetV1(width=0.25), image, 10, batch=8)


def test_depthwise_convolutions_start_with_a_variance_of_two_over_nine():
    weight = MobileNetV1().build(IMAGENET, 10).blocks[12].depthwise.weight
    assert weight.var().item() == pytest.approx(2 / 9, rel=0.05)
