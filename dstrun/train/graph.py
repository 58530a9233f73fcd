"""An ordinary step as a CUDA graph: recorded once, then launched as a whole instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], None]

WARM = 3
"""Steps that a process takes kernel by kernel first: libraries choose their kernels, the optimizer makes its state."""


def capture(step: Step, x: Tensor, y: Tensor) -> Step:
    """Record what a step does on the current stream, which is not the default one; nothing is computed yet.

    All that changes between steps has to be in tensors that stay where they are: the batch is copied into those that
    were recorded.

    Args:
        step: of images and labels.
        x: images (B, C, H, W) to record it with.
        y: labels (B,).

    Returns:
        The same step, for batches of the same shape.
    """
    images, labels = x.clone(), y.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        step(images, labels)

    def replay(x: Tensor, y: Tensor) -> None:
        images.copy_(x)
        labels.copy_(y)
        graph.replay()

    return replay


def fuse(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Make the optimizer take its step in one kernel, which reads the learning rate from the device.

    Args:
        optimizer: ``torch.optim.SGD`` that has taken no step yet.
        device: of its parameters.
    """
    for group in optimizer.param_groups:
        group |= {"fused": True, "lr": torch.tensor(group["lr"], dtype=torch.float32, device=device)}
