"""What a sparse layer computes, one operation a file, behind one interface: ``Kernel``.

``reference`` is plain PyTorch and defines what is right; ``fast`` is compiled for the CPU; ``shapes`` computes nothing,
for tensors that hold no numbers. Activations are handed over
batch-innermost: (C, H, W, N), contiguous; a linear layer's as (I, 1, 1, P), P items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.backend.pattern import Pattern
    from dstrun.geometry import ConvGeometry

NAMES = ("fast", "reference")


class Kernel(Protocol):
    """The three products of a sparse layer; nothing of the dense weight's size is made.

    Shape letters: A active connections, M connections, O outputs, C input channels, N samples.
    """

    def forward(
        self, geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor
    ) -> Tensor:
        """Give the output (O, Ho, Wo, N) of an input (C, H, W, N); weight (A,), bias (O,)."""
        ...

    def input_gradient(
        self, geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Give the gradient (C, H, W, N) of the input of that size from the output's, (O, Ho, Wo, N)."""
        ...

    def weight_gradient(self, geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
        """Give the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name."""
        ...


def kernel_for(x: Tensor, name: str | None = None) -> Kernel:
    """Choose the kernels for activations.

    Args:
        x: activations, whose device and type count.
        name: ``fast`` or ``reference``; the fastest that there is if ``None``.

    Raises:
        TypeError: the one asked for does not work on that device and type, or the type is not a floating one; nothing
            is computed densely instead.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    from dstrun.backend.kernel import fast, reference, shapes
    from dstrun.backend.kernel.call import works

    if not x.is_floating_point():
        raise TypeError(f"sparse layers take floating-point activations, not {x.dtype}")
    if isinstance(x, FakeTensor):
        return shapes
    if name == "fast" and not works(x):
        raise TypeError(f"the fast sparse kernels take float32 and bfloat16 on the CPU, not {x.dtype} on {x.device}")
    return fast if name != "reference" and works(x) else reference
