"""One color and one marker per method, the same in every figure."""

from __future__ import annotations

import zlib
from pathlib import Path

SHEET = Path(__file__).with_name("dstrun.mplstyle")

# In the order of legends and of the rows of a table. The colors are petroff10's, made to be told apart by
# color-blind readers (Petroff 2021, arXiv 2107.02270), and Okabe and Ito's (2008).
METHODS = {
    "dense": ("#404040", ""),
    "thin": ("#009e73", "P"),
    "thinet": ("#cc79a7", "*"),
    "sss": ("#0072b2", "p"),
    "static": ("#94a4a2", "X"),
    "random": ("#92dadd", "h"),
    "snip": ("#b9ac70", "<"),
    "grasp": ("#717581", ">"),
    "synflow": ("#009e73", "*"),
    "set": ("#3f90da", "o"),
    "set_itop": ("#cc79a7", "p"),
    "mest": ("#0072b2", "<"),
    "dsr": ("#b9ac70", ">"),
    "deepr": ("#717581", "8"),
    "snfs": ("#009e73", "p"),
    "rigl": ("#ffa90e", "s"),
    "itop": ("#cc79a7", "<"),
    "gradient": ("#e76300", "d"),
    "gse": ("#bd1f01", "^"),
    "gse-grabo": ("#832db6", "v"),
    "gse-graest": ("#a96b59", "D"),
    "topkast": ("#0072b2", ">"),
    "topk_ga": ("#b9ac70", "8"),
    "str": ("#717581", "P"),
    "autosparse": ("#009e73", "<"),
    "gmp": ("#cc79a7", ">"),
    "magnitude": ("#0072b2", "8"),
    "taylor": ("#b9ac70", "P"),
    "fisher": ("#717581", "*"),
    "lth": ("#009e73", ">"),
}
NEUTRAL = METHODS["dense"][0]
"""Of what is no method: dense training, fronts, handles of a legend that stand for all methods."""
# For methods not named above.
OTHER_COLORS = ("#009e73", "#cc79a7", "#0072b2", "#b9ac70", "#717581")
OTHER_MARKERS = ("P", "*", "p", "<", ">", "8")
# Rows of one method that differ in a setting.
LINES = ("-", "--", "-.", ":")
# Bars of one method that differ in a setting.
HATCHES = ("", "////", "....", "xxxx", "----")


def style(label: str) -> tuple[str, str]:
    """Return the color and the marker of a method; an unknown one gets its own from its name alone."""
    if label in METHODS:
        return METHODS[label]
    place = zlib.crc32(label.encode())
    return OTHER_COLORS[place % len(OTHER_COLORS)], OTHER_MARKERS[place // len(OTHER_COLORS) % len(OTHER_MARKERS)]


def line(label: str, variant: int) -> str:
    """Return the line of a method's row; dense is a reference and dashed."""
    return LINES[(variant + (label == "dense")) % len(LINES)]


def order(label: str) -> tuple[int, str]:
    """Sort key: known methods as in ``METHODS``, other gse variants behind gse, the rest by name."""
    names = list(METHODS)
    if label in METHODS:
        return names.index(label), label
    return (len(names) if label.startswith("gse") else len(names) + 1), label
