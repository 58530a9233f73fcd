import pytest
import torch

from dstrun.model.resnet import BasicBlock, ResNet
from dstrun.system.trouble import ConfigError

CIFAR = (3, 32, 32)


def test_resnet56_counts(count):
    found = count(ResNet(depth=56), CIFAR, 10)
    assert (found.layers, found.prunable, found.total) == (56, 848_944, 853_018)
    assert found.macs == 125_485_696
    assert count(ResNet(depth=56), CIFAR, 100).prunable == 854_704


@pytest.mark.parametrize(
    ("depth", "total"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_totals_of_the_depths_of_the_paper(count, depth, total):
    found = count(ResNet(depth=depth), CIFAR, 10)
    assert found.total == total
    assert found.layers == depth  # a depth counts the layers with weights, and shortcuts have none


@pytest.mark.parametrize("width", [0.4, 1.5, 2.0])
def test_width_scales_channels(width):
    model = ResNet(depth=8, width=width).build(CIFAR, 10)
    channels = [model.conv1.weight.shape[0], model.layer2[0].conv2.weight.shape[0], model.fc.weight.shape[1]]
    assert channels == [int(16 * width), int(32 * width), int(64 * width)]
    assert model(torch.zeros(2, *CIFAR)).shape == (2, 10)


@pytest.mark.parametrize("image", [CIFAR, (1, 8, 8), (1, 9, 7)])
def test_gradients_flow(learns, image):
    learns(ResNet(depth=14), image, 10)


def test_shortcut_takes_every_second_position_and_pads_channels_on_both_sides():
    block = BasicBlock(2, 5, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)  # leaves relu(shortcut)
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert out.shape == (1, 5, 2, 2)
    torch.testing.assert_close(out[:, 1:3], x[:, :, [0, 2]][:, :, :, [0, 2]])
    assert not out[:, [0, 3, 4]].any()


def test_block_is_the_identity_on_positive_values_where_its_weights_vanish():
    block = BasicBlock(3, 3, stride=1).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(block(x), x.relu())


def test_convolutions_start_with_a_variance_of_two_over_fan_in():
    torch.manual_seed(0)
    weight = ResNet(depth=20).build(CIFAR, 10).layer3[1].conv1.weight
    assert weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)


@pytest.mark.parametrize(("depth", "near"), [(54, "50 or 56"), (57, "56 or 62"), (18, "14 or 20"), (7, "8"), (2, "8")])
def test_other_depths_are_refused(depth, near):
    with pytest.raises(ConfigError, match=rf"^model\.depth={depth} must be 6n\+2 .*: the nearest is {near}$"):
        ResNet(depth=depth)
