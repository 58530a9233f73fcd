"""A process of a sweep that trains several runs: each in a thread, in turns, with its output in its own log."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial

from dstrun.config.experiment import Experiment
from dstrun.launcher.work import work
from dstrun.system.output import outlast
from dstrun.system.progress import say
from dstrun.train.stop import Stop
from dstrun.train.turns import take_turns

LEFT = 130
"""Exit code of what left at once."""


def work_together(
    experiments: Sequence[Experiment], threads: int | None, tell: Callable[[int, str | None, str, int], None]
) -> int:
    """Train runs in turns; one that fails ends alone.

    Args:
        experiments: composed and checked, of one device and one way to compute.
        threads: CPU threads, where a configuration leaves them open.
        tell: called as each ends, with its number here, state, sentence and exit code.

    Returns:
        The highest of their exit codes.
    """
    codes: list[int] = []

    def train(number: int, experiment: Experiment) -> None:
        endings: list[tuple[str | None, str]] = [(None, "")]
        try:
            code = work(experiment, threads, lambda *words: endings.append(words))
        except KeyboardInterrupt:
            code = LEFT
        except BaseException:
            say(traceback.format_exc())
            code = 1
        codes.append(code)
        tell(number, *endings[-1], code)

    outlast()
    with Stop():
        take_turns([partial(train, number, experiment) for number, experiment in enumerate(experiments)])
    return max(codes)
