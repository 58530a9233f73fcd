"""Completion in the shell: verbs, their flags and words, topics of help; the names of settings are left to Hydra."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

from dstrun.cli import line, offered
from dstrun.cli.flags import INSTEAD
from dstrun.cli.shell import SCRIPTS
from dstrun.cli.start import hydra_here
from dstrun.cli.verb import VERBS
from dstrun.cli.words import QUERY
from dstrun.config.option import expanded
from dstrun.config.schema import SETTINGS
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    import argparse

    from dstrun.cli.flags import Parser

TAKE_SETTINGS = ("plan", "eval")
"""The verbs that take words as a run does."""


def complete(words: Sequence[str]) -> int:
    """Print what may stand where the shell completes, or what makes it ask.

    Raises:
        ConfigError: it is not the shell that asks.
    """
    if script := next((SCRIPTS[word] for word in words if word in SCRIPTS), ""):
        print(script)
        return 0
    if any(word.startswith("query=") for word in words):
        if "COMP_LINE" not in os.environ:
            raise ConfigError("-sc query=SHELL is for completion in the shell, which sets COMP_LINE")
        typed = os.environ["COMP_LINE"].split(" ")[1:]
        if typed:
            print("\n".join(candidates([word for word in typed[:-1] if word], typed[-1].lstrip("'\""))))
        return 0
    return _hydra(words)


def candidates(before: Sequence[str], word: str) -> list[str]:
    """Return what a word that begins so may be.

    Args:
        before: the words before it.
        word: its letters so far.
    """
    asked, last = line.read(before), before[-1] if before else ""
    found: Iterable[str]
    if "help" in before or any(flag in before for flag in line.HELP):
        found = _topics(word)
    elif last in ("-cn", "--config-name"):
        from dstrun.config.grid import shipped

        found = shipped()
    elif last in ("-cd", "--config-dir"):
        found = ()  # a folder, which the shell completes
    else:
        parser = _parser(asked)
        action = next((action for action in parser._actions if last in action.option_strings), None)
        if action is not None and action.nargs is None:
            found = map(str, action.choices or ())
        elif word.startswith("-"):
            found = _flags(parser)
        else:
            found = [*_places(asked, parser, word)]
            if not (asked.verb and found):
                found += _settings(asked, before, word)
    return list(dict.fromkeys(name for name in found if name.startswith(word)))


def _flags(parser: Parser) -> list[str]:
    every = [flag for action in parser._actions for flag in action.option_strings]
    return [*(flag for flag in every if flag.startswith("--") and flag not in INSTEAD), "--help", "--version"]


def _places(asked: line.Line, parser: Parser, word: str) -> Iterator[str]:
    """Yield what may stand for a word that is no flag: a verb, or what the verb's next word may be."""
    if asked.verb is None:
        yield from () if any("=" in word for word in asked.words) else (*VERBS, "help")
        return
    taken = [at for at in _plain(asked.words, parser) if "=" not in at]
    for place, action in enumerate(action for action in parser._actions if not action.option_strings):
        many = action.nargs == "*"
        if place < len(taken) and not many:
            continue
        if action.choices:
            yield from map(str, action.choices)
        elif action.metavar == "RUN":
            yield from offered.runs(word)
        elif many and "where=" in str(action.metavar):
            yield from _query(word, taken[place:], QUERY if asked.verb == "table" else QUERY[:1])
        if not many:
            return


def _plain(words: Sequence[str], parser: Parser) -> list[str]:
    """Return the words that are neither flags nor follow a flag that takes a word."""
    valued = [flag for action in parser._actions if action.nargs is None for flag in action.option_strings]
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if not word.startswith("-") and before not in valued]


def _query(word: str, results: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    """Yield the words of a query of runs; not where nothing is typed, as a folder may stand there."""
    key, sign, text = word.partition("=")
    if not sign:
        yield from (f"{key}=" for key in keys if word)
    elif key in keys:
        below = results or ["results"]
        found = offered.conditions(text, below) if key == "where" else offered.listed_fields(text, below)
        yield from (f"{key}={one}" for one in found)


def _topics(word: str) -> list[str]:
    """Return the topics of help: verbs, groups, their options once a group is said, settings."""
    from dstrun.cli.help import GROUP, TOPICS, options

    key, sign, _ = word.partition("=")
    if sign:
        return [f"{key}={name}" for name in options(key)] if key in GROUP else []
    return [*VERBS, *GROUP, *TOPICS, *SETTINGS]


def _settings(asked: line.Line, before: Sequence[str], word: str) -> list[str]:
    """Return settings, options and values of a run, in a list of values too."""
    if asked.verb is not None and asked.verb not in TAKE_SETTINGS:
        return []
    key, sign, text = word.partition("=")
    if sign and key.lstrip("+").startswith("hydra."):
        found = _asked_of_hydra(before, f"{key.lstrip('+')}=")  # the value that is set, and so of which kind
        other = {"true": "false", "false": "true"}
        return [*found, *(f"{key}={other[v]}" for one in found if (v := one.rpartition("=")[2]) in other)]
    if sign and "/" not in key:  # Hydra would name the value that is set already, and no other
        return [f"{key}={value}" for value in offered.values(key.lstrip("+"), text, before, _folders(before))]
    found = _asked_of_hydra(before, word)
    return [name for name in found if not name.endswith("._target_=")]


def _folders(before: Sequence[str]) -> list[str]:
    """Return the folders of ``--config-dir``."""
    pairs = pairwise(before)
    return [expanded(folder) for flag, folder in pairs if flag in ("-cd", "--config-dir")]


def _parser(asked: line.Line) -> Parser:
    """Return the parser of a command line's verb, or of a run."""
    from dstrun.cli import flags

    if asked.verb is None:
        return flags.run_parser()
    words = [word for word in asked.words if not word.startswith("-")][:1] if asked.verb == "bench" else []
    flags.Parser.wanted = " ".join(["dstrun", asked.verb, *words])
    try:
        import_module(f"dstrun.cli.verb.{asked.verb}").main(words)
    except flags.Found as found:
        return found.parser
    except ConfigError:
        pass
    finally:
        flags.Parser.wanted = ""
    return flags.run_parser()


def _asked_of_hydra(before: Sequence[str], word: str) -> list[str]:
    """Return what Hydra completes."""
    from dstrun.config.diagnose import FAULTS

    pairs = zip(["", *before], before, strict=False)
    before = [word for last, word in pairs if "=" in word or word.startswith("-") or last in line.VALUED]
    words = ["dstrun", *before, word]
    os.environ["COMP_LINE"] = " ".join(words)
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    with redirect_stdout(io.StringIO()) as said:
        try:
            _hydra(["query=bash", *before])
        except (*FAULTS, ConfigError):  # of words that stand before it
            return []
    return said.getvalue().split()


def _hydra(words: Sequence[str]) -> int:
    """Make Hydra print its completion script or its candidates.

    Raises:
        ConfigError: the words ask for neither.
    """
    from dstrun.cli import flags
    from dstrun.config.composition import hydra_open

    found: argparse.Namespace = flags.of_run(words)
    overrides = [word for word in found.overrides if word.startswith(("query=", "install=", "uninstall="))]
    with hydra_open(found.config_dir):
        try:
            hydra_here().shell_completion(found.config_name or "config", overrides)
        except (ValueError, AssertionError) as error:
            wanted = "install=SHELL, uninstall=SHELL or query=SHELL, of bash, fish and zsh"
            raise ConfigError(f"-sc needs one of {wanted}") from error
    return 0
