"""SSS: sparse structure selection (Huang and Wang 2018), of channels."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dstrun.config.option import Above, AtLeast, Within, option
from dstrun.method.procedure import Method, Procedure, Setting


@option
class SSS(Method):
    """Multiply every channel by a factor trained under an L1 penalty; drop those whose factor is zero.

    Factors start at 1, are never negative and minimise L + ``gamma`` sum factor by accelerated proximal gradient (the
    paper's equations 11 to 13), whatever optimizer the weights have: at the rate ``factor_lr`` at first, then as much
    less as the schedule takes off theirs. At ``end`` (share of training) channels of factor 0 are removed and the other
    factors stay as they are. How sparse the network gets follows from ``gamma``.
    """

    gamma: Annotated[float, AtLeast(0)] = 0.001
    factor_lr: Annotated[float, Above(0)] = 0.1
    momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    end: Annotated[float, Above(0), Within(0, 1)] = 1.0

    why: ClassVar[str] = "whose sparsity follows from method.gamma"
    start: ClassVar[str] = "all"
    budget: ClassVar[bool] = False
    dense: ClassVar[str] = "which starts from every connection"
    alone: ClassVar[str] = "which follows channels through the network of a single process"
    exact: ClassVar[bool] = False

    def procedure(self, setting: Setting) -> Procedure:
        """Train factors, drop the zeros."""
        from dstrun.method.structured.factors import Factors

        return Factors(
            setting, self.gamma, self.factor_lr, self.momentum, max(1, round(self.end * setting.total_steps))
        )
