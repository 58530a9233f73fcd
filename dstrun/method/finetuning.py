"""The learning rate at which a pruned network is fine-tuned, where it keeps that of its dense training."""

from __future__ import annotations

from dstrun.method.procedure import Setting

ROUNDING = 1e-9
"""By which a rate may miss what it should be at least, relative to it: 0.1 x 0.1 x 0.1 is not 0.001."""


def held(setting: Setting, least: float) -> int:
    """Return the step, counted from 0, of the dense training's schedule whose rate is kept: the last, if it trains.

    A schedule may end at a rate of almost 0, as a cosine does. Then it is the last step that has the share ``least`` of
    the highest rate.
    """
    total = setting.nominal_steps
    rates = [setting.rate(step, total) for step in range(total)]
    floor = least * max(rates) * (1 - ROUNDING)
    return max(step for step, rate in enumerate(rates) if rate >= floor)
