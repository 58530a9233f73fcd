"""Command-line flags: argparse, with errors in one sentence that suggests the nearest spelling."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dstrun.config import hint
from dstrun.config.hint import nearest
from dstrun.config.option import GROUPS, expanded
from dstrun.config.schema import SETTINGS
from dstrun.system.trouble import ConfigError

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
INSTEAD = {
    "--config-path": "--config-dir adds a folder of your own",
    "--experimental-rerun": "the same command runs it again",
}
"""Hydra's flags that are not taken, and what to do instead."""


class Once(argparse.Action):
    """Store a value; refuse a second one, of which the first would be lost."""

    seen = False

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Store a value."""
        if option and self.seen:
            raise ConfigError(f"{option} is given twice: choose one")
        self.seen = bool(option)
        setattr(namespace, self.dest, values)


class Found(Exception):
    """A verb's parser, where completion asks for it."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """A parser that takes flags anywhere and no abbreviations, and raises ``ConfigError``."""

    wanted = ""
    """The parser that completion asks for, by ``prog``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **settings)
        self.register("action", None, Once)
        self.register("action", "store", Once)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words and flags in any order."""
        return self.parse_intermixed_args(args, namespace)

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words and flags in any order; where completion asks for this parser, raise it."""
        if self.prog == Parser.wanted:
            raise Found(self)
        return super().parse_intermixed_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        given = f"{action.option_strings[-1]} {value}" if action.option_strings else value
        known = [str(choice) for choice in action.choices]
        raise ConfigError(f"{given} is not known: choose {', '.join(known)}{nearest(str(value), known)}")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong as every other wrong input ends."""
        if unknown := re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.DOTALL):
            word = unknown[1].partition("=")[0]
            flags = [*(flag for flag in self._option_string_actions if flag.startswith("--")), "--help", "--version"]
            if not word.startswith("-"):
                raise ConfigError(f"{unknown[1]} is not accepted here; {self.prog} --help lists what is")
            takes = any(action.dest == "overrides" for action in self._actions)
            near = (takes and _as_word(unknown[1])) or nearest(word, flags)
            raise ConfigError(f"{word} is not a flag here{near}; {self.prog} --help lists them")
        if message.startswith("the following arguments are required: "):
            raise ConfigError(
                f"{self.prog.removeprefix('dstrun ')} needs {self._lacking(message)}; {self.prog} --help says more"
            )
        raise ConfigError(re.sub(r"^argument (?:-\w+/)?", "", message))

    def _lacking(self, message: str) -> str:
        """Name what is required and was not given; argparse names words that may be left out, too."""
        given = message.partition(": ")[2].split(", ")
        found = []
        for action in self._actions:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            if name in given and action.nargs != "*":
                choices = f", one of {', '.join(map(str, action.choices))}" if action.choices else ""
                value = f" {action.metavar}" if action.option_strings else ""
                found.append(f"{name}{value}{choices}")
        return " and ".join(found)


def run_parser() -> Parser:
    """Make the parser of a command line without a verb."""
    parser = Parser("dstrun", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-cn", "--config-name")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", const="all", nargs="?", choices=INFO)
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("--experimental-rerun")
    for flag in ("--resolve", "--hydra-help"):
        parser.add_argument(flag, action="store_true")
    for flags in (("-m", "--multirun"), ("-r", "--run"), ("-sc", "--shell-completion")):
        parser.add_argument(*flags, action="store_true")
    return parser


def of_run(words: Sequence[str]) -> argparse.Namespace:
    """Separate the flags of a run from its words, ``overrides``, wherever they stand.

    Raises:
        ConfigError: one that is not known, or makes no sense.
    """
    found = run_parser().parse_args(_informed(words))
    for flag, what in INSTEAD.items():
        if getattr(found, flag.lstrip("-").replace("-", "_")):
            raise ConfigError(f"{flag} is not supported: {what}")
    if found.run and found.multirun:
        raise ConfigError("--run and --multirun exclude each other")
    if (found.resolve and found.cfg != "job") or (found.package and not found.cfg):
        raise ConfigError(f"{'--resolve' if found.resolve else '--package'} goes with --cfg job")
    return found


def _as_word(flag: str) -> str:
    """Return the setting that is meant by a flag, ``--lr``: settings are words."""
    name, sign, value = flag.lstrip("-").partition("=")
    name = name.replace("-", "_")
    known = [*GROUPS, *SETTINGS]
    instead = name if name in known else hint.SETTINGS.get(name) or hint.OF_OPTIONS.get(name)
    if flag == "-v" or not instead:
        return hint.said("--version") if flag == "-v" else ""
    return hint.said(instead if "=" in instead else f"{instead}={value if sign else 'VALUE'}")


def _informed(words: Sequence[str]) -> list[str]:
    """Return the words with what ``--info`` leaves out, so that it does not take a setting for it."""
    found = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        alone = word in ("-i", "--info") and ("=" in after or after.startswith("~"))
        found += [word, "all"] if alone else [word]
    return found


def a_path(text: str) -> Path:
    """Read a path that a flag takes."""
    try:
        return Path(expanded(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
