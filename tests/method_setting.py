"""A method's setting for tests: what is not said is as small as it can be."""

import torch
from torch import nn
from torch.nn import functional

from dstrun.method.procedure import Setting


def setting(layers=(), **changes) -> Setting:
    """Make a setting of these layers."""

    def samples(step, per_class):
        raise AssertionError("this method draws no samples")

    given = {
        "prune": None,
        "grow": None,
        "schedule": None,
        "scope": "layer",
        "counts": None,
        "budget": sum(layer.count for layer in layers),
        "sparsity": 0.5,
        "total_steps": 100,
        "nominal_steps": 100,
        "steps_per_epoch": 10,
        "image": (1, 1, 1),
        "classes": 10,
        "seed": 0,
        "strict": False,
        "model": nn.Sequential(*[layer.module for layer in layers if hasattr(layer, "module")]),
        "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1),
        "fresh_pass": lambda step, samples: 0,
        "overflowed": lambda finite: False,
        "samples": samples,
        "loss": functional.cross_entropy,
        "rate": lambda step, total: 0.1,
    }
    assert changes.keys() <= given.keys()
    return Setting(layers, **(given | changes))
