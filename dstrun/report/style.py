"""One color and one marker per method, the same in every figure."""

from __future__ import annotations

import zlib
from pathlib import Path

SHEET = Path(__file__).with_name("dstrun.mplstyle")

# In the order of legends and of the rows of a table. The colors are petroff10's, made to be told apart by
# color-blind readers (Petroff 2021, arXiv 2107.02270).
METHODS = {
    "dense": ("#404040", ""),
    "static": ("#94a4a2", "X"),
    "set": ("#3f90da", "o"),
    "random": ("#92dadd", "h"),
    "rigl": ("#ffa90e", "s"),
    "gradient": ("#e76300", "d"),
    "gse": ("#bd1f01", "^"),
    "gse-grabo": ("#832db6", "v"),
    "gse-graest": ("#a96b59", "D"),
}
# For methods not named above: no color or marker that is, from petroff10 and Okabe and Ito (2008).
OTHER_COLORS = ("#009e73", "#cc79a7", "#0072b2", "#b9ac70", "#717581")
OTHER_MARKERS = ("P", "*", "p", "<", ">", "8")
# Rows of one method that differ in a setting.
LINES = ("-", "--", "-.", ":")


def style(label: str) -> tuple[str, str]:
    """Give the color and the marker of a method; an unknown one gets its own from its name alone."""
    if label in METHODS:
        return METHODS[label]
    place = zlib.crc32(label.encode())
    return OTHER_COLORS[place % len(OTHER_COLORS)], OTHER_MARKERS[place // len(OTHER_COLORS) % len(OTHER_MARKERS)]


def line(label: str, variant: int) -> str:
    """Give the line of a method's row; dense is a reference and dashed."""
    return "--" if label == "dense" and variant == 0 else LINES[variant % len(LINES)]


def order(label: str) -> tuple[int, str]:
    """Sort key: known methods as in ``METHODS``, other gse variants behind gse, the rest by name."""
    names = list(METHODS)
    if label in METHODS:
        return names.index(label), label
    return (len(names) if label.startswith("gse") else len(names) + 1), label
