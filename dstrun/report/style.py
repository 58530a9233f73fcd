"""How the rows of a figure are told apart: hues, markers and dashes, chosen for that figure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SHEET = Path(__file__).with_name("dstrun.mplstyle")

NEUTRAL = "#404040"
"""Of dense training and what is no method."""
PALE = "#a6a6a6"
"""Of what stands behind: the reference, the Pareto front."""
HUES = {
    "orange": "#e69f00", "sky": "#56b4e9", "green": "#009e73", "blue": "#0072b2", "vermillion": "#d55e00",
    "purple": "#cc79a7", "indigo": "#332288",
}  # fmt: skip
"""Okabe and Ito's (2008), made for color-blind readers, with Tol's indigo (2021) for their yellow, which is lost on
white. With ``NEUTRAL`` a figure has eight colors at most."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d", "8")
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
"""Rows of one hue differ in their dashes."""
HATCHES = ("", "////", "....", "xxxx", "----")
"""Bars of one hue differ in their hatching."""
MOST = 12
"""More rows nobody can tell apart in one figure."""

# In the order of legends and of the rows of a table; each with the hue and marker that it has where they are free.
METHODS = {
    "dense": ("", ""),
    "thin": ("green", "P"),
    "thinet": ("purple", "*"),
    "sss": ("blue", "p"),
    "static": ("green", "X"),
    "random": ("purple", "h"),
    "snip": ("indigo", "<"),
    "grasp": ("blue", "D"),
    "synflow": ("purple", "*"),
    "set": ("sky", "o"),
    "set_itop": ("blue", "p"),
    "mest": ("blue", "<"),
    "dsr": ("green", ">"),
    "deepr": ("indigo", "8"),
    "snfs": ("green", "p"),
    "rigl": ("orange", "s"),
    "itop": ("purple", "<"),
    "gradient": ("orange", "d"),
    "gse": ("vermillion", "^"),
    "gse-grabo": ("blue", "v"),
    "gse-graest": ("purple", "D"),
    "topkast": ("blue", ">"),
    "topk_ga": ("purple", "8"),
    "str": ("indigo", "P"),
    "autosparse": ("green", "<"),
    "gmp": ("green", "v"),
    "magnitude": ("blue", "8"),
    "taylor": ("purple", "P"),
    "fisher": ("indigo", "*"),
    "lth": ("green", ">"),
}
FIRST = ("dense", "set", "rigl", "gse")
"""Have their own hue and marker in every figure."""


class Look(NamedTuple):
    """The color, marker and line of a row."""

    color: str = NEUTRAL
    marker: str = ""
    line: str | tuple[int, tuple[float, ...]] = "-"


PLAIN = Look()


def looks(rows: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Look]:
    """Choose the looks of a figure's rows, given as labels and the variants of each.

    No two rows share a marker. Rows of one label share its hue, the one that ``METHODS`` names where no other has it,
    and differ in their dashes; where it is the only label besides dense, they have hues of their own. Labels that share
    a hue differ in their dashes too.
    """
    rows = list(dict.fromkeys(rows))
    labels = sorted({label for label, _ in rows}, key=lambda label: (label not in FIRST, order(label)))
    alone = [label for label in labels if label != "dense"] if len({*labels} - {"dense"}) == 1 else []
    used: dict[str, int] = {}
    taken: set[str] = set()
    found: dict[tuple[str, int], Look] = {}
    for label in labels:
        hue, marker = METHODS.get(label) or _own(label)
        if label == "dense":
            color, dash = NEUTRAL, 1
        else:
            free = [name for name in HUES if name not in used]
            hue = hue if hue in free or not free else free[0]
            hue = hue if free else min(used, key=lambda name: used[name])
            dash = used[hue] = used.get(hue, -1) + 1
            color = HUES[hue]
        for place, variant in enumerate(sorted(variant for one, variant in rows if one == label)):
            if label != "dense":
                marker = marker if marker not in taken else next((m for m in MARKERS if m not in taken), marker)
                taken.add(marker)
            own = HUES[list(HUES)[(list(HUES).index(hue) + place) % len(HUES)]] if label in alone else color
            found[label, variant] = Look(own, marker, LINES[(dash + variant) % len(LINES)])
    return found


def _own(label: str) -> tuple[str, str]:
    """Return what a method of your own has where it is free, by its name alone."""
    place = zlib.crc32(label.encode())
    return list(HUES)[place % len(HUES)], MARKERS[place // len(HUES) % len(MARKERS)]


def order(label: str) -> tuple[int, str]:
    """Sort key: known methods as in ``METHODS``, other gse variants behind gse, the rest by name."""
    names = list(METHODS)
    if label in METHODS:
        return names.index(label), label
    return (len(names) if label.startswith("gse") else len(names) + 1), label
