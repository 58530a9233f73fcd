"""What every model's test counts: prunable weights, parameters, multiply-accumulates."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def count():
    """Count a model's layers, weights and the MACs of one image, on the meta device: nothing is computed."""

    def count(option, image, classes):
        with torch.device("meta"):
            model = option.build(image, classes).eval()
            batch = torch.empty(1, *image)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert model(batch).shape == (1, classes)
        flops = {str(op): n // 2 for op, n in counter.get_flop_counts()["Global"].items()}
        attention = sum(n for op, n in flops.items() if "attention" in op or "bmm" in op)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return SimpleNamespace(
            layers=len(layers),
            prunable=sum(m.weight.numel() for m in layers),
            total=sum(p.numel() for p in model.parameters()),
            macs=sum(flops.values()) - attention,
            attention=attention,
        )

    return count


@pytest.fixture
def learns():
    """Check that a step's gradient reaches every parameter, and that it is finite."""

    def learns(option, image, classes, batch=4):
        torch.manual_seed(0)
        model = option.build(image, classes)
        logits = model(torch.randn(batch, *image))
        assert logits.shape == (batch, classes)
        nn.functional.cross_entropy(logits, torch.arange(batch) % classes).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        return model

    return learns
