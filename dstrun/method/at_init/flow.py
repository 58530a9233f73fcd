"""The synaptic flow of a network: how much of an input of ones passes each connection, all weights positive.

Shape letters: N connections of a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dstrun.method.procedure import Setting
from dstrun.method.pruning import best
from dstrun.system.transfer import sent


def flow_after(rounds: int, setting: Setting) -> list[Tensor]:
    """Prune a copy of the network by its flow, all but the last of so many rounds.

    Returns:
        scores of the last round, -1 where an earlier one has pruned: (N,) of every layer, float64.

    Raises:
        OverflowError: the flow of the network is too large a number.
    """
    network, weights = positive(setting)
    ones = torch.ones(1, *setting.image, dtype=torch.float64, device=weights[0].device)
    pruned = [torch.zeros(w.numel(), dtype=torch.bool, device=w.device) for w in weights]
    for index in range(1, rounds + 1):
        scores = [s.masked_fill(out, -1) for s, out in zip(flow(network, weights, ones), pruned, strict=True)]
        if index == rounds:
            break
        share, sizes = index / rounds, [w.numel() for w in weights]
        counts = setting.counts and [left(n, c, share) for n, c in zip(sizes, setting.counts, strict=True)]
        for weight, out, kept in zip(
            weights, pruned, best(scores, counts, left(sum(sizes), setting.budget, share)), strict=True
        ):
            out.fill_(True).index_fill_(0, sent(kept, out.device), False)
            weight.detach().view(-1)[out] = 0
    return scores


def left(size: int, target: int, share: float) -> int:
    """Count what is left of ``size`` on the exponential way to ``target``, after a share of the rounds."""
    return max(target, round(size * (target / size) ** share))


def flow(network: nn.Module, weights: Sequence[Tensor], ones: Tensor) -> list[Tensor]:
    """Return |w dR/dw| with R the sum of the network's outputs: (N,) for each of these weights.

    Raises:
        OverflowError: R is too large a number.
    """
    with Linearized():
        total = network(ones).sum()
    if not torch.isfinite(total):
        raise OverflowError(f"the synaptic flow of this network is {total.item()}, too large for {total.dtype}")
    gradients = torch.autograd.grad(total, weights, materialize_grads=True)
    return [(w * g).detach().abs().flatten() for w, g in zip(weights, gradients, strict=True)]


def positive(setting: Setting) -> tuple[nn.Module, list[Tensor]]:
    """Copy the network with every parameter and buffer made positive, float64, in evaluation mode.

    Returns:
        the copy, and the weight in it of every layer. It lies on the processor where the device lacks float64.
    """
    names = {id(parameter): name for name, parameter in setting.model.named_parameters()}
    network = copy.deepcopy(setting.model).eval()
    if setting.layers[0].weight.device.type == "mps":
        network.cpu()
    network.double()
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.abs_()
    return network, [network.get_parameter(names[id(layer.weight)]) for layer in setting.layers]


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
