"""Pruning at random before training: the control of every score."""

from __future__ import annotations

from typing import ClassVar

from dstrun.config.option import option
from dstrun.method.at_init.once import PruneOnce, Scores
from dstrun.method.procedure import Setting
from dstrun.system.lazy import torch
from dstrun.system.stream import generator


@option
class Random(PruneOnce):
    """Keep connections at random.

    ``scope=global`` draws among all layers, as the control of Tanaka et al. 2020; ``scope=layer`` keeps the
    allocation's counts, as Liu et al. 2022. Weights keep the scale of the dense initialization, where ``method=static``
    draws them for the fan-in that is left.
    """

    dense: ClassVar[str] = "which starts from the dense network's initialization"

    def score(self, setting: Setting) -> Scores:
        """Draw uniform scores: (N,) of every layer."""
        draws = [generator(setting.seed, "prune", 0, index) for index in range(len(setting.layers))]
        return [
            torch.rand(layer.count, generator=draw, dtype=torch.float64)  # ties would favour the first layers
            for layer, draw in zip(setting.layers, draws, strict=True)
        ], 0
