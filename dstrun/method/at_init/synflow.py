"""SynFlow: iterative synaptic flow pruning, without data (Tanaka et al. 2020).

The flow of a connection says how much of an input of ones passes it, all weights positive.
Shape letters: N connections of a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from dstrun.config.option import AtLeast, option
from dstrun.method.at_init.once import PruneOnce, Scores
from dstrun.method.procedure import Setting
from dstrun.method.pruning import best
from dstrun.method.rounds import survivors
from dstrun.system.lazy import torch
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor, nn


@option
class SynFlow(PruneOnce):
    """Keep the connections of largest |w dR/dw|, R the sum of the outputs for an input of ones with weights |w|.

    It prunes in ``rounds`` (n) rounds to the density (1 - sparsity)^(k / n) in the k-th, and scores anew after each
    (algorithm 1), which avoids layer collapse. It uses neither data nor random numbers.
    """

    rounds: Annotated[int, AtLeast(1)] = 100

    def score(self, setting: Setting) -> Scores:
        """Return the last round's |w dR/dw|, and -1 where an earlier round has pruned: (N,) of every layer."""
        return flow_after(self.rounds, setting), self.rounds

    def scored_samples(self, classes: int) -> int:
        """Count the input of ones once a round."""
        return self.rounds


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
        counts = setting.counts and [survivors(n, c, share) for n, c in zip(sizes, setting.counts, strict=True)]
        for weight, out, kept in zip(
            weights, pruned, best(scores, counts, survivors(sum(sizes), setting.budget, share)), strict=True
        ):
            out.fill_(True).index_fill_(0, sent(kept, out.device), False)
            weight.detach().view(-1)[out] = 0
    return scores


def flow(network: nn.Module, weights: Sequence[Tensor], ones: Tensor) -> list[Tensor]:
    """Return |w dR/dw| with R the sum of the network's outputs: (N,) for each of these weights.

    Raises:
        OverflowError: R is too large a number.
    """
    from dstrun.method.at_init.linearized import Linearized

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
