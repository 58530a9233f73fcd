"""STR: soft threshold weight reparametrization (Kusupati et al. 2020)."""

from __future__ import annotations

from dstrun.config.option import option
from dstrun.method.soft.learned import Learned


@option
class STR(Learned):
    """Train w~ = sign(w) relu(|w| - sigmoid(s)) with one s a layer; pruned weights get no gradient.

    Sparsity comes from the weight decay of s (``threshold_decay``) and from where s starts (``s_init``), and differs
    from layer to layer.
    """
