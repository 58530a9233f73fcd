import pytest
import torch
import torchvision

from dstrun.model.resnet50 import ResNet50

IMAGENET = (3, 224, 224)


def test_counts(count):
    found = count(ResNet50(), IMAGENET, 1000)
    assert (found.layers, found.prunable, found.total) == (54, 25_502_912, 25_557_032)
    assert found.macs == 4_089_184_256


def test_loads_weights_of_torchvision_and_computes_the_same():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None, num_classes=10).eval()
    ours = ResNet50().build((3, 64, 64), 10).eval()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_layers_stand_in_the_same_order_as_in_torchvision():
    with torch.device("meta"):
        ours, theirs = ResNet50().build(IMAGENET, 1000), torchvision.models.resnet50(weights=None)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


@pytest.mark.parametrize("width", [0.25, 0.465, 2.0])
def test_width_scales_all_channels(count, width):
    with torch.device("meta"):
        model = ResNet50(width=width).build(IMAGENET, 1000)
    assert model.conv1.weight.shape[0] == int(64 * width)
    assert model.layer1[1].conv1.weight.shape == (int(64 * width), 4 * int(64 * width), 1, 1)
    assert model.layer4[0].conv2.weight.shape == (int(512 * width), int(512 * width), 3, 3)
    assert model.fc.weight.shape == (1000, 4 * int(512 * width))
    assert count(ResNet50(width=width), IMAGENET, 1000).layers == 54


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 8, 8)])
def test_gradients_flow(learns, image):
    learns(ResNet50(width=0.125), image, 10, batch=8)
