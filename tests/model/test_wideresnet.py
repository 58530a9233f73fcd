import pytest
import torch
from torch import nn

from dstrun.model.wideresnet import PreActivationBlock, WideResNet
from dstrun.system.trouble import ConfigError

CIFAR = (3, 32, 32)

PUBLISHED = {
    (40, 1): "0.6", (40, 2): "2.2", (40, 4): "8.9", (28, 10): "36.5", (28, 12): "52.5", (22, 8): "17.2",
    (16, 8): "11.0", (16, 10): "17.1",
}  # fmt: skip
"""Millions of parameters on CIFAR-10: Zagoruyko and Komodakis 2016."""


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_parameters_are_those_of_the_paper(count, name, millions):
    depth, width = name
    assert f"{count(WideResNet(depth=depth, width=width), CIFAR, 10).total / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("depth", "width", "total", "prunable"),
    [(28, 2, 1_467_610, 1_463_984), (22, 2, 1_079_642, 1_076_912), (28, 10, 36_479_194, 36_461_232)],
)
def test_counts(count, depth, width, total, prunable):
    found = count(WideResNet(depth=depth, width=width), CIFAR, 10)
    assert (found.layers, found.total, found.prunable) == (depth + 1, total, prunable)
    # By hand: the stem, n blocks of two convolutions in each stage less what the first lacks, three shortcuts.
    n, stages = (depth - 4) // 6, [(32 // 2**s, 16 * 2**s * width) for s in range(3)]
    macs, ins = 32 * 32 * 27 * 16 + 64 * width * 10, 16
    for size, outs in stages:
        macs += size**2 * outs * (9 * ins + 9 * outs * (2 * n - 1) + ins)
        ins = outs
    assert found.macs == macs


def test_width_is_the_widening_factor_and_leaves_the_stem():
    model = WideResNet(depth=10, width=0.75).build(CIFAR, 10)
    assert [model.conv1.out_channels, *(s[0].conv1.out_channels for s in (model.layer1, model.layer2))] == [16, 12, 24]
    assert model.fc.in_features == 48


@pytest.mark.parametrize(("dropout", "image"), [(0.0, (1, 9, 7)), (0.3, CIFAR)])
def test_gradients_flow(learns, dropout, image):
    model = learns(WideResNet(depth=16, width=1, dropout=dropout), image, 10)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == ([0.3] * 6 if dropout else [])


@pytest.mark.parametrize(("ins", "outs", "stride"), [(3, 3, 1), (3, 5, 1), (4, 4, 2)])
def test_a_block_by_hand(ins, outs, stride):
    torch.manual_seed(0)
    block = PreActivationBlock(ins, outs, stride, dropout=0.0).eval()
    x = torch.randn(2, ins, 6, 6)
    y = (x / (1 + block.bn1.eps) ** 0.5).relu()  # statistics as they start: mean 0, variance 1
    if (ins, stride) == (outs, 1):
        assert block.shortcut is None
        through = x
    else:
        through = nn.functional.conv2d(y[:, :, ::stride, ::stride], block.shortcut.weight)
    y = nn.functional.conv2d(y, block.conv1.weight, stride=stride, padding=1) / (1 + block.bn2.eps) ** 0.5
    expected = through + nn.functional.conv2d(y.relu(), block.conv2.weight, padding=1)
    before = x.clone()
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("depth", "near"), [(26, "22 or 28"), (29, "28 or 34"), (9, "10"), (4, "10")])
def test_other_depths_are_refused(depth, near):
    with pytest.raises(ConfigError, match=rf"^model\.depth={depth} must be 6n\+4 .*: the nearest is {near}$"):
        WideResNet(depth=depth)
