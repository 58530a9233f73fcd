"""Words and units that several sentences share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence


def few(names: Sequence[str], most: int = 4) -> str:
    """Join the first names with commas and count the rest: ``a, b and 3 more``.

    Args:
        names: in the order in which they are named.
        most: how many are named.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, what: str) -> str:
    """Count things by their name in the singular: ``1 run``, ``1,200 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_bytes(value: float) -> str:
    """Format bytes in decimal units, three digits: ``42.8 MB``."""
    if value < 999.5:
        return f"{value:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"


def in_seconds(value: float) -> str:
    """Format seconds as ``12.3 ms``, ``9.1 s``, ``1m 20s``, ``3h 05m`` or ``2d 04h``."""
    if value < 0.9995:
        return f"{1000 * value:.3g} ms" if value else "0 s"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}m {seconds:02d}s"
    days, hours_left = divmod(hours, 24)
    return f"{hours}h {minutes_left:02d}m" if days == 0 else f"{days}d {hours_left:02d}h"


def wrapped(text: str, width: int, hanging: Callable[[str], int]) -> str:
    """Wrap lines that are longer than a width, between words; a word that is longer stays whole.

    Args:
        text: of one line or several.
        width: of the terminal.
        hanging: returns how far the rest of a line is indented. Where a word would not fit so, it is two columns.
    """
    return "\n".join(_wrapped(line, width, hanging) if len(line) > width else line for line in text.split("\n"))


def _wrapped(line: str, width: int, hanging: Callable[[str], int]) -> str:
    deep = hanging(line)
    if deep + max(map(len, line.split()), default=0) > width:
        deep = min(deep, 2)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * deep,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def deeper(line: str) -> int:
    """Return the indentation of what continues a sentence: two more columns."""
    return len(line) - len(line.lstrip()) + 2


def fixed(value: float, digits: int) -> str:
    """Format with so many decimals, or with two significant digits where these would show next to nothing."""
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10.0**-digits else f"{value:.2g}"
