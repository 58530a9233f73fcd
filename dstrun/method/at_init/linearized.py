"""A network with its nonlinearities replaced by functions linear for positive numbers, for its synaptic flow."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Linearized(TorchFunctionMode):
    """Compute with what is linear for positive numbers, as ReLU is, in place of what is not.

    GELU and layer normalization become the identity, as in the experiments of Heddes et al. 2024. The softmax of
    attention becomes a division by the row's sum, held constant, so that the same flow passes queries, keys and values.
    As the identity, theirs, it raises the numbers to the power 3 in every block, out of the range of float64.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Stand in for a function of PyTorch."""
        if func in (functional.gelu, functional.layer_norm):
            return args[0]
        if func is functional.scaled_dot_product_attention:
            query, key, value = args
            return shares(query @ key.mT) @ value
        return func(*args, **(kwargs or {}))


def shares(x: Tensor) -> Tensor:
    """Divide by the sum over the last dimension, a constant; a row of zeros stays."""
    total = x.detach().sum(-1, keepdim=True)
    return x / total.where(total > 0, 1)
