"""An ordinary step as a CUDA graph: recorded once, then launched as a whole instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Step = Callable[[Tensor, Tensor], None]

WARM = 3
"""Steps that a process takes kernel by kernel first: libraries choose their kernels, the optimizer makes its state."""


def capture(step: Step, x: Tensor, y: Tensor, counters: Sequence[Tensor] = ()) -> Step:
    """Record what a step does on the current stream, which is not the default one; nothing is computed yet.

    All that changes between steps has to be in tensors that stay where they are: the batch is copied into those that
    were recorded.

    Args:
        step: of images and labels.
        x: images (B, C, H, W) to record it with.
        y: labels (B,).
        counters: (), on the host, that a step raises by one.

    Returns:
        The same step, for batches of the same shape.
    """
    images, labels = x.clone(), y.clone()
    graph = torch.cuda.CUDAGraph()
    before = [counter.clone() for counter in counters]
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            step(images, labels)
    finally:
        for counter, was in zip(counters, before, strict=True):
            counter.copy_(was)  # nothing but they has changed

    def replay(x: Tensor, y: Tensor) -> None:
        images.copy_(x)
        labels.copy_(y)
        graph.replay()
        for counter in counters:
            counter += 1

    return replay


def counters_on_host(model: nn.Module) -> list[Tensor]:
    """Make normalization layers count their batches on the host, which saves a kernel each, and return the layers.

    Those stay where they are that average over all batches, and so compute with the number.
    """
    counters = []
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.momentum is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.cpu()
            counters.append(norm.num_batches_tracked)
    return counters


def fuse(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Make the optimizer take its step in one kernel, which reads the learning rate from the device.

    Args:
        optimizer: ``torch.optim.SGD`` that has taken no step yet.
        device: of its parameters.
    """
    for group in optimizer.param_groups:
        group |= {"fused": True, "lr": torch.tensor(group["lr"], dtype=torch.float32, device=device)}
