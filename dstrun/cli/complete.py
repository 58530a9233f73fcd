"""Completion in the shell: verbs, their flags and values, topics of help; settings of a run are left to Hydra."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING

from dstrun.cli import line
from dstrun.cli.flags import INSTEAD
from dstrun.cli.start import hydra_here
from dstrun.cli.verb import VERBS
from dstrun.config.option import GROUPS
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
    if any(word.startswith("query=") for word in words):
        if "COMP_LINE" not in os.environ:
            raise ConfigError("-sc query=SHELL is for completion in the shell, which sets COMP_LINE")
        typed = os.environ["COMP_LINE"].split(" ")[1:]
        if typed:
            print("\n".join(dict.fromkeys(candidates([word for word in typed[:-1] if word], typed[-1]))))
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
            found = [*_places(asked, parser), *_settings(asked, before, word)]
    return [name for name in found if name.startswith(word)]


def _flags(parser: Parser) -> list[str]:
    every = [flag for action in parser._actions for flag in action.option_strings]
    return [*(flag for flag in every if flag.startswith("--") and flag not in INSTEAD), "--help", "--version"]


def _places(asked: line.Line, parser: Parser) -> list[str]:
    """Return what may stand for a word that is no flag: a verb, or what the verb's next word may be."""
    if asked.verb is None:
        return [] if any("=" in word for word in asked.words) else [*VERBS, "help"]
    taken = [word for word in asked.words if not word.startswith("-")]
    choices = [action for action in parser._actions if not action.option_strings and action.choices]
    return [str(choice) for choice in choices[0].choices or ()] if choices and not taken else []


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
    if sign and key.lstrip("+") in SETTINGS:
        return [f"{key}={value}" for value in _values(key.lstrip("+"), text)]
    if sign and key in (*GROUPS, "protocol") and "," in text:
        from dstrun.cli.help import options

        done = text.rpartition(",")[0]
        return [f"{key}={done},{name}" for name in options(key) if name not in done.split(",")]
    found = _asked_of_hydra([before_word for before_word in before if before_word != asked.verb], word)
    # a value that Hydra names is the one that is set already, and no other
    return [name for name in found if not sign or key in (*GROUPS, "protocol") or "/" in key]


def _values(key: str, text: str) -> list[str]:
    """Return the values that a setting may have; after those of a list that stand there."""
    item = SETTINGS[key]
    bound = item.metadata["bound"]
    bound = bound() if key == "tracker" else bound
    known = list(bound) if isinstance(bound, tuple) else ["true", "false"] if item.type == "bool" else []
    done, comma, _ = text.rpartition(",")
    return [f"{done}{comma}{value}" for value in known if value not in done.split(",")]


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
    words = ["dstrun", *before, word]
    os.environ["COMP_LINE"] = " ".join(words)
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    with redirect_stdout(io.StringIO()) as said:
        try:
            _hydra(["query=bash", *before])
        except ConfigError:  # of words that stand before it
            return []
    return said.getvalue().split()


def _hydra(words: Sequence[str]) -> int:
    """Have Hydra print what makes a shell ask, or what it completes.

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
