"""What a sparse layer computes, one operation a file, behind one interface: ``Kernel``.

``reference`` is plain PyTorch and defines what is right; ``fast`` is compiled for the CPU, ``gpu`` for GPUs and linear
layers alone; ``shapes`` computes nothing, for tensors that hold no numbers. Activations are handed over
batch-innermost: (C, H, W, N), contiguous; a linear layer's as (I, 1, 1, P), P items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.backend.sparse.pattern import Pattern
    from dstrun.layer.geometry import ConvGeometry

NO_TRITON = (
    "backend=sparse needs Triton on a GPU, and it is not installed: install it, or set backend=masked or device=cpu"
)


class Kernel(Protocol):
    """The three products of a sparse layer; nothing of the dense weight's size is made.

    Shape letters: A active connections, M connections, O outputs, C input channels, N samples.
    """

    def forward(
        self, geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor
    ) -> Tensor:
        """Return the output (O, Ho, Wo, N) of an input (C, H, W, N); weight (A,), bias (O,)."""
        ...

    def input_gradient(
        self, geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Return the gradient (C, H, W, N) of the input of that size from the output's, (O, Ho, Wo, N)."""
        ...

    def weight_gradient(self, geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
        """Return the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name."""
        ...


def kernel_for(geometry: ConvGeometry, x: Tensor, name: str | None = None) -> Kernel:
    """Choose the kernels for activations.

    Args:
        geometry: of the layer.
        x: activations, whose device, type and size count.
        name: ``fast`` or ``reference``; ``fast`` if ``None``, but for a type that it does not take.

    Raises:
        TypeError: the one asked for does not work on that device and type, or the type is not a floating one; nothing
            is computed densely instead, and convolutions on a GPU by the reference on request alone.
        ImportError: a GPU is to compute, and Triton is not installed.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    from dstrun.backend.sparse.kernel import fast, reference, shapes
    from dstrun.backend.sparse.kernel.call import works

    if not x.is_floating_point():
        raise TypeError(f"sparse layers need floating-point activations, not {x.dtype}")
    if isinstance(x, FakeTensor):
        return shapes
    if name != "reference" and works(x):
        return fast
    if name != "reference" and x.device.type == "cuda" and x.dtype.itemsize <= 4:
        if not _is_linear(geometry, x):
            raise TypeError(
                "sparse convolutions have no GPU kernel: masked ones (dstrun.backend.masked) are faster "
                "there; kernel = 'reference' on each layer computes them anyway, slowly"
            )
        return _gpu()
    if name == "fast":
        raise TypeError(
            "the fast sparse kernels support float32 and bfloat16, and float16 in linear layers on a GPU, not "
            f"{x.dtype} on {x.device}"
        )
    return reference


def _is_linear(geometry: ConvGeometry, x: Tensor) -> bool:
    return geometry.pointwise and geometry.groups == 1 and tuple(x.shape[1:3]) == (1, 1)


def _gpu() -> Kernel:
    try:
        from dstrun.backend.sparse.kernel import gpu
    except ModuleNotFoundError as error:
        raise ImportError(NO_TRITON) from error
    return gpu
