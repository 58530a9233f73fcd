"""Layers, optimizers and criteria that masked layers are tested with."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dstrun.backend.masked.layer import sparsify
from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.optimizer.adam import Adam
from dstrun.optimizer.adamw import AdamW
from dstrun.optimizer.sgd import SGD
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform

MODULES = {
    "linear": (lambda: nn.Linear(12, 8), (4, 12)),
    "tokens": (lambda: nn.Linear(12, 8, bias=False), (2, 5, 12)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 6, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)), (2, 4, 8, 7)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2), (2, 4, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 6)),
    "row": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
}
modules = pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
OPTIMIZERS = {
    "sgd": SGD(lr=0.01, momentum=0.9, weight_decay=0.1),
    "nesterov": SGD(lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    "plain": SGD(lr=0.01, momentum=0, weight_decay=0.1),
    "adam": Adam(lr=0.01, weight_decay=0.1),
    "adamw": AdamW(lr=0.01, weight_decay=0.1),
}
optimizers = pytest.mark.parametrize("option", OPTIMIZERS.values(), ids=OPTIMIZERS)
CRITERIA = {
    "gradient": Gradient(),
    "uniform": GSE(subset=Uniform()),
    "grabo": GSE(subset=GraBo(), gamma=0.5),
    "graest": GSE(subset=GraEst(), sampling="single"),
}


def sparse(make, density=0.4, seed=0):
    """Return one sparse layer."""
    module = make()
    (layer,) = sparsify(module, [round(density * module.weight.numel())], seed)
    return layer


def loss_of(layer, shape, seed=1):
    """Return a loss whose output gradient is not constant."""
    torch.manual_seed(seed)
    return layer.module(torch.randn(shape)).square().sum()


def dense_gradient(layer, shape, seed=1):
    """Compute the gradient of every connection apart from the layer: (N,)."""
    torch.manual_seed(seed)
    x, module = torch.randn(shape), layer.module
    weight = module.weight.detach().clone().requires_grad_()
    if isinstance(module, nn.Linear):
        y = functional.linear(x, weight, module.bias)
    else:
        convolution = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d
        y = convolution(x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups)
    (gradient,) = torch.autograd.grad(y.square().sum(), weight)
    return gradient.flatten()


def inactive_of(layer, tensor):
    return tensor.flatten()[~layer.mask.flatten()]
