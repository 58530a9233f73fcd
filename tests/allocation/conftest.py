"""The layers of the models that papers state densities and FLOPs of."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dstrun.model.resnet import ResNet
from dstrun.model.resnet_imagenet import ResNet50
from dstrun.model.vgg import VGG16
from dstrun.model.vit import ViT

MODELS = {
    "resnet56": (ResNet(depth=56), (3, 32, 32), 10),
    "vgg16_small": (VGG16(base=16), (3, 32, 32), 10),
    "vit": (ViT(patch=4), (3, 32, 32), 10),
    "resnet50": (ResNet50(), (3, 224, 224), 1000),
}


def measure(option, image, classes):
    names, shapes, macs = [], [], {}
    with torch.device("meta"):
        model = option.build(image, classes).eval()
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                names.append(name)
                shapes.append(tuple(layer.weight.shape))

                def hook(layer, args, out, name=name):
                    macs[name] = out.numel() // layer.weight.shape[0] * layer.weight.numel()

                layer.register_forward_hook(hook)
        model(torch.empty(1, *image))
    return names, shapes, [macs[name] for name in names]


@pytest.fixture(scope="session")
def network():
    """Measure a model by name: its shapes, the densities and the share of dense FLOPs under an allocation."""
    measured = {name: measure(*what) for name, what in MODELS.items()}

    def network(name):
        names, shapes, macs = measured[name]

        def densities(allocation, sparsity):
            counts = allocation.counts(shapes, sparsity)
            return {n: c / torch.Size(s).numel() for n, s, c in zip(names, shapes, counts, strict=True)}

        def flops(allocation, sparsity):
            parts = densities(allocation, sparsity).values()
            return sum(d * m for d, m in zip(parts, macs, strict=True)) / sum(macs)

        return SimpleNamespace(shapes=shapes, densities=densities, flops=flops)

    return network
