"""The products of a sparse layer as one function of autograd.

An input that was normalized is made from what was normalized when a product needs it, in the forward pass and again in
the backward pass, and kept in neither.

Shape letters: C channels, O outputs, H rows, W columns, N samples, A active connections.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.kernel import kernel_for
from dstrun.backend.sparse.kernel.layout import batch_innermost, batch_outermost


class Product(torch.autograd.Function):
    """Map (C, H, W, N), or a ``Deferred``, to (O, Ho, Wo, N).

    An armed backward pass scores candidates in place of the weight's gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        """Compute the output; weight (A,), bias (O,), layer the ``Sparse`` that they are of."""
        kept, ctx.affine, ctx.turned, parameters = x, None, False, (None, None)
        if isinstance(x, Deferred):
            kept, ctx.affine, parameters, x = x.x, x.affine.bare(), x.affine[:2], x.affine.view(x.values())
        else:
            x = batch_innermost(x)
            ctx.turned = x is not kept and x.shape[1:3] == (1, 1)
            kept = kept if ctx.turned else x  # what made it keeps it as it was
        ctx.layer, ctx.kernel, ctx.size = layer, kernel_for(layer.convolution, x, layer.kernel), x.shape[1:3]
        ctx.save_for_backward(kept, weight, *parameters)
        return ctx.kernel.forward(layer.convolution, layer.pattern, weight, bias, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of x, weight and bias from that of the output."""
        kept, weight, *parameters = ctx.saved_tensors
        layer, kernel, delta, dx, db = ctx.layer, ctx.kernel, batch_innermost(delta), None, None
        wanted = ctx.needs_input_grad[1] or layer._search is not None
        x = _made_again(ctx, kept, *parameters) if wanted else kept
        dw = _weight_gradient(ctx, x, weight, delta)
        del x  # before its gradient comes: it was made for this pass
        if ctx.needs_input_grad[0]:
            dx = kernel.input_gradient(layer.convolution, layer.pattern, weight, delta, ctx.size)
            if ctx.affine is not None:
                dx = ctx.affine.logical(dx, kept.shape)
            elif ctx.turned:  # as the input lay: what made it works so
                dx = batch_outermost(dx).permute(1, 2, 3, 0)
        if ctx.needs_input_grad[2]:
            db = delta.sum((1, 2, 3), dtype=torch.float64 if delta.dtype == torch.float64 else torch.float32)
        return dx, dw, db, None


def _made_again(ctx: Any, kept: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return the input as kernels have it, from what was kept of it."""
    if ctx.affine is None:
        return batch_innermost(kept)
    return ctx.affine.view(ctx.affine._replace(weight=weight, bias=bias)(kept))


def _weight_gradient(ctx: Any, x: Tensor, weight: Tensor, delta: Tensor) -> Tensor | None:
    """Return the gradient of the weights (A,), if it is wanted; or search for candidates, if the layer is to grow."""
    layer, pattern = ctx.layer, ctx.layer.pattern
    if layer._search is not None:
        layer.look(x, delta, ctx.kernel)
        return None
    if layer._found is not None:
        raise RuntimeError(
            f"{layer.name} is used twice in a forward pass: growing by gradient needs backend=masked there"
        )
    if not ctx.needs_input_grad[1]:
        return None
    return ctx.kernel.weight_gradient(layer.convolution, pattern.rows, pattern.inputs, x, delta).to(weight.dtype)
