import pytest
import torch

from dstrun.model.resnet_imagenet import ResNet18, ResNet34, ResNet50

IMAGENET = (3, 224, 224)
KINDS = {"resnet18": ResNet18, "resnet34": ResNet34, "resnet50": ResNet50}
kinds = pytest.mark.parametrize(("name", "kind"), KINDS.items())


@pytest.mark.parametrize(
    ("kind", "layers", "prunable", "total", "macs"),
    [
        (ResNet18, 21, 11_678_912, 11_689_512, 1_814_073_344),
        (ResNet34, 37, 21_779_648, 21_797_672, 3_663_761_408),
        (ResNet50, 54, 25_502_912, 25_557_032, 4_089_184_256),
    ],
)
def test_counts(count, kind, layers, prunable, total, macs):
    found = count(kind(), IMAGENET, 1000)
    assert (found.layers, found.prunable, found.total, found.macs) == (layers, prunable, total, macs)


@pytest.mark.parametrize(
    ("kind", "total", "macs"),
    [
        (ResNet18, 11_173_962, 555_422_720),
        (ResNet34, 21_282_122, 1_159_402_496),
        (ResNet50, 23_520_842, 1_297_829_888),
    ],
)
def test_counts_with_the_stem_for_small_images(count, kind, total, macs):
    """Those of the networks of github.com/kuangliu/pytorch-cifar."""
    found = count(kind(stem="cifar"), (3, 32, 32), 10)
    assert (found.total, found.macs) == (total, macs)


@kinds
def test_loads_weights_of_torchvision_and_computes_the_same(name, kind):
    torch.manual_seed(0)
    import torchvision

    theirs = getattr(torchvision.models, name)(weights=None, num_classes=10).eval()
    ours = kind().build((3, 64, 64), 10).eval()
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("width", [0.25, 0.465, 2.0])
def test_width_scales_all_channels(count, width):
    with torch.device("meta"):
        model = ResNet50(width=width).build(IMAGENET, 1000)
    assert model.conv1.weight.shape[0] == int(64 * width)
    assert model.layer1[1].conv1.weight.shape == (int(64 * width), 4 * int(64 * width), 1, 1)
    assert model.layer4[0].conv2.weight.shape == (int(512 * width), int(512 * width), 3, 3)
    assert model.fc.weight.shape == (1000, 4 * int(512 * width))
    assert count(ResNet50(width=width), IMAGENET, 1000).layers == 54


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize(("kind", "image"), [(ResNet18, (3, 32, 32)), (ResNet34, (1, 8, 8)), (ResNet50, (1, 8, 8))])
def test_gradients_flow(learns, kind, image, stem):
    learns(kind(width=0.125, stem=stem), image, 10, batch=8)
