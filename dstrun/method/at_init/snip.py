"""SNIP: connection sensitivity of the untrained network (Lee et al. 2019)."""

from __future__ import annotations

from typing import Annotated

from dstrun.config.option import OneOf, option
from dstrun.method.at_init.once import PruneOnSamples, Scores, parts, scoring_pass
from dstrun.method.procedure import Setting
from dstrun.method.statistics import evaluating


@option
class SNIP(PruneOnSamples):
    """Keep the connections of largest |w dL/dw|, the loss's sensitivity to a factor c = 1 on each (equation 5).

    ``scope=global`` ranks all layers together, as in the paper (its normalisation by the sum changes no order), and may
    empty a layer; ``scope=layer`` keeps the allocation's counts.

    ``statistics=running`` normalizes by the running statistics, 0 and 1 in a fresh network, as the authors' code does;
    ``statistics=batch`` by the batch scored, as in training.
    """

    statistics: Annotated[str, OneOf("running", "batch")] = "running"

    def score(self, setting: Setting) -> Scores:
        """Return |w dL/dw|: (N,) of every layer."""
        passed = 0
        with (evaluating if self.statistics == "running" else scoring_pass)(setting.model):
            for x, y, share in parts(self, setting):
                (share * setting.loss(setting.model(x), y)).backward()
                passed += len(y)
        return [(layer.values() * layer.grad()).abs() for layer in setting.layers], passed
