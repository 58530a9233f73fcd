"""Text of files and of others, made safe where it goes out: to a terminal, a log, a formula, a spreadsheet."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from typing import Any, TextIO

from dstrun.system.wording import deeper, wrapped

HIDDEN = (
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff"  # control characters, and halves of others
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]"  # the direction of writing, ends of lines
)
# Compiled when first used: most commands need none, and would start later.
SECRET = r"(?i)(key|token|secret|passw|credential)"
"""In the name of an environment variable whose value is masked."""
USER = r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:'\"]*:[^\s/@'\"]*@"
WORD = r"(?i)\b((?:[\w-]*(?:api[_-]?key|token|secret|password|passwd))\s*[=:]\s*)(?!null\b|None\b)[^\s,;&'\"]+"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def visible(text: str, keep: str = "\n\t") -> str:
    """Show control characters, escape sequences and what turns the direction of writing by their number.

    Args:
        text: of anybody.
        keep: control characters that stay.
    """
    if text.isprintable() or ("\n" in keep and text.replace("\n", "").isprintable()):  # nothing hidden is
        return text
    return re.sub(HIDDEN, lambda found: found[0] if found[0] in keep else _shown(found[0]), text)


def line(text: str) -> str:
    """Make one visible line of a text: for a cell of a table, a name, a message."""
    return text if text.isprintable() and " " not in text else visible(" ".join(text.split()), "")


def _shown(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def without_secrets(text: str) -> str:
    """Mask credentials: user and password in URLs, values of words like ``api_key=``, and those of this environment."""
    if "://" in text:
        text = re.sub(USER, r"\1***@", text)
    text = re.sub(WORD, r"\1***", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and re.search(SECRET, name):
            text = text.replace(value, "***")
    return text


def cell(value: Any) -> Any:
    """Keep a spreadsheet from taking text for a formula, by a quote before it; numbers stay as they are."""
    if not isinstance(value, str):
        return value
    if value.isprintable() and value[:1].isalnum():  # nearly every one
        return value
    text = visible(value, "\n")
    if re.fullmatch(NUMBER, text):
        return text
    return f"'{text}" if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA[:4]) else text


class Visible(logging.Formatter):
    """Log lines, safe: what is logged may quote a file."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as ever, then mask, show and wrap."""
        return readable(visible(without_secrets(super().format(record))), sys.stderr)


def readable(text: str, stream: TextIO) -> str:
    """Wrap sentences where they are read on a terminal, and leave them as they are in files and pipes."""
    return wrapped(text, max(shutil.get_terminal_size().columns, 40), deeper) if stream.isatty() else text


def put(text: str) -> None:
    """Print results on stdout."""
    sys.stdout.write(f"{visible(text)}\n")


class Stderr(logging.StreamHandler[TextIO]):
    """Log to what stderr is at the moment: whoever draws a bar there stands in for it, and puts lines above the bar."""

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return stderr."""
        return sys.stderr

    @stream.setter
    def stream(self, _: object) -> None:
        pass


def log_to_stderr() -> None:
    """Send log lines and warnings of libraries to stderr, each safe: matplotlib quotes letters that it cannot draw."""
    handler = Stderr()
    handler.setFormatter(Visible("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)
