"""What a command line asks for: a verb, help or the version, wherever they are among its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dstrun.cli.verb import VERBS

HELP = ("-h", "--help")
VERSION = ("-V", "--version")

VALUED = (
    "-cn", "--config-name", "-cd", "--config-dir", "-c", "--cfg", "-p", "--package", "-cp", "--config-path",
    "--experimental-rerun",
)  # fmt: skip
"""The flags of a run that a word follows (``flags.of_run``)."""


class Line(NamedTuple):
    """A command line.

    Attributes:
        verb: ``None`` where a run or a sweep is asked for.
        words: all others.
        wants: ``help``, ``version``, or neither.
        topics: what help is wanted of.
        strict: whether a topic has to be one: after the word ``help``, not after ``--help``.
    """

    verb: str | None
    words: list[str]
    wants: str = ""
    topics: tuple[str, ...] = ()
    strict: bool = False


def read(words: Sequence[str]) -> Line:
    """Read a command line; nothing is checked.

    ``help`` may stand before a verb or after it; after it, a folder of that name is one.
    """
    plain = _plain(words)
    at = _verb(words, plain)
    verb = None if at is None else words[at]
    rest = [word for number, word in enumerate(words) if number != at]
    others = [words[number] for number in plain if number != at]
    asked = "help" in others and (at is None or words.index("help") < at or not Path("help").exists())
    if asked or any(word in HELP for word in words):
        return Line(verb, rest, "help", tuple(word for word in others if word != "help"), asked)
    if any(word in VERSION for word in words) or (verb is None and "version" in others):
        return Line(verb, rest, "version")
    return Line(verb, rest)


def _plain(words: Sequence[str]) -> list[int]:
    """Return the places of words that are neither flags nor follow a flag of a run that takes a word."""
    pairs = enumerate(zip(["", *words], words, strict=False))
    return [at for at, (before, word) in pairs if not word.startswith("-") and before not in VALUED]


def _verb(words: Sequence[str], plain: Sequence[int]) -> int | None:
    """Return the place of the verb: before all words but flags and what follows them, as in ``--out x table``."""
    perhaps = None
    for at in plain:
        follows = at > 0 and words[at - 1].startswith("-")
        if words[at] in VERBS and not follows:
            return at
        if words[at] in VERBS:
            perhaps = at if perhaps is None else perhaps
        elif words[at] != "help" and (not follows or "=" in words[at]):
            break
    return perhaps
