"""A process of a sweep that trains one run, with its output in the run's log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dstrun.config.experiment import Experiment
from dstrun.record.folder import RunFolder
from dstrun.record.lock import BUSY_CODE, Busy
from dstrun.run.lifecycle import report, run
from dstrun.system.bounded import refuse_link
from dstrun.system.output import outlast
from dstrun.system.progress import say
from dstrun.system.safe import log_to_stderr
from dstrun.system.trouble import ConfigError, why


def work(
    experiment: Experiment, threads: int | None = None, tell: Callable[[str, str], None] = lambda state, message: None
) -> int:
    """Train a run; what it prints goes to ``log.txt`` in its folder.

    Args:
        experiment: composed and checked.
        threads: CPU threads, where the configuration leaves them open.
        tell: called with how it ended, a state and a sentence, which its folder may be unable to say.

    Returns:
        The exit code: 0 done, 1 failed, 2 refused, 75 another process works on it, 130 interrupted.
    """
    outlast()
    folder = RunFolder(experiment.config, experiment.choices)
    try:
        if int(os.environ.get("SLURM_PROCID", 0)) == 0:
            print_to(folder.path / "log.txt")
        log_to_stderr()
        logging.getLogger("submitit").propagate = False  # it prints by itself
        if experiment.config["threads"] is None:
            experiment = replace(experiment, config={**experiment.config, "threads": threads})
        outcome = run(experiment)
    except ConfigError as error:
        say(f"dstrun: {error}")
        with suppress(Busy, ConfigError, OSError), folder.owned():
            folder.status(state="failed", message=str(error))
        tell("failed", str(error))
        return 2
    tell(outcome.state, outcome.message or "")
    code = report(outcome)
    return BUSY_CODE if outcome.state == "busy" else code


def print_to(log: Path) -> None:
    """Send what this process and those it starts print to the end of a file; where there can be none, nowhere."""
    try:
        refuse_link(log.parent)
        log.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        os.set_blocking(number, True)
    except OSError as error:
        say(f"{log} cannot be written ({why(error)}): the run has no log")
        number = os.open(os.devnull, os.O_WRONLY)
    for stream, target in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(number, target)
    os.close(number)
