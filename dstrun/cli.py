"""The command line: verbs; anything else is a list of Hydra overrides and runs. Imports torch only inside a run.

Exit codes: 0 done, 1 a run failed, 2 bad usage or configuration, 3 nothing matched, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from dstrun.option import ConfigError, nearest
from dstrun.progress import say
from dstrun.safe import log_to_stderr
from dstrun.start import hydra_main, of_file, run_one, split_flags, sweep

VERBS = ("methods", "plan", "status", "table", "plot", "report", "export", "sync", "migrate", "bench", "doctor")
"""A module of ``dstrun.verb`` each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    log_to_stderr()
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            from dstrun.help import text

            print(text())
            return 0
        if words[0] == "--version":
            from dstrun import __version__

            print(f"dstrun {__version__}")
            return 0
        if words[0] in VERBS:
            return import_module(f"dstrun.verb.{words[0]}").main(words[1:])
        return train(words)
    except ConfigError as error:
        say(f"dstrun: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def train(words: list[str]) -> int:
    """Run one configuration, or a sweep; check all of it before anything starts."""
    if "-sc" in words or "--shell-completion" in words:
        return complete(words)
    from dstrun import config

    flags, overrides = split_flags(words)
    name, directories = of_file(flags)
    if flags.cfg or flags.info or flags.hydra_help or flags.package or flags.resolve:
        return hydra_main(words)
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word} is neither a verb nor key=value{nearest(word, VERBS)}")
    if not flags.multirun and (name == "config" or not config.is_sweep(overrides, directories, name)):
        return run_one(config.compose(overrides, directories, name))
    return sweep(overrides, directories, name)


def complete(words: list[str]) -> int:
    """Complete verbs, then leave the rest to Hydra's own completion."""
    line = os.environ.get("COMP_LINE", "").split(" ")
    if any(word.startswith("query=") for word in words) and len(line) > 1:
        if line[-2] in ("-cn", "--config-name"):
            from dstrun.grid import shipped

            print("\n".join(name for name in shipped() if name.startswith(line[-1])))
            return 0
        if len(line) == 2:
            print("\n".join(verb for verb in VERBS if verb.startswith(line[1])))
        if line[1] in VERBS and line[1] != "plan":
            return 0
        if line[1] == "plan":
            os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
            os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return hydra_main(words)
