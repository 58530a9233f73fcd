from __future__ import annotations

from itertools import combinations

import numpy as np

from dstrun.cli.help import options
from dstrun.report.style import HUES, MARKERS, METHODS, MOST, NEUTRAL, looks, order

SIMULATED = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""What linear RGB becomes for a reader (Machado, Oliveira and Fernandes 2009, severity 1)."""


def lab(color: str, seen: object) -> np.ndarray:
    """CIELAB of a color as somebody sees it, D65."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.asarray(seen) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear.clip(0, 1)
    x, y, z = np.cbrt((xyz / [0.9505, 1, 1.089]).clip(0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_hues_are_told_apart_by_color_blind_readers() -> None:
    assert len(HUES) + 1 <= 8
    for seen in SIMULATED.values():
        for one, other in combinations([NEUTRAL, *HUES.values()], 2):
            assert np.linalg.norm(lab(one, seen) - lab(other, seen)) > 17, (one, other)
    assert np.linalg.norm(lab("#717581", SIMULATED["deuteranopia"]) - lab("#cc79a7", SIMULATED["deuteranopia"])) < 17


def test_no_two_rows_of_a_figure_look_alike() -> None:
    assert set(options("method")) - {"dst"} <= METHODS.keys()
    assert len(MARKERS) >= MOST
    names = [*METHODS, "mine", "ours"]
    for start in range(len(names)):
        rows = [(names[(start + 3 * i) % len(names)], 0) for i in range(MOST)]
        found = looks(rows)
        marked = [look for (label, _), look in found.items() if label != "dense"]
        assert len({look.marker for look in marked}) == len(marked)
        assert len({look[::2] for look in found.values()}) == len(found)  # hue and dash, where marks are few
    varied = looks([("gse", i) for i in range(4)] + [("rigl", 0)])
    assert len({look.color for (label, _), look in varied.items() if label == "gse"}) == 1
    assert len({look[1:] for look in varied.values()}) == 5
    assert len({look.color for look in looks(("gse", i) for i in range(7)).values()}) == 7


def test_the_first_methods_look_the_same_in_every_figure() -> None:
    alone = looks([("gse", 0), ("rigl", 0)])
    among = looks((label, 0) for label in ("dense", "static", "snfs", "itop", "mest", "rigl", "set", "gse", "lth"))
    assert {row: among[row] for row in alone} == alone
    assert among["dense", 0].color == NEUTRAL


def test_order() -> None:
    names = ["zeta", "topkast", "gse-own", "gse-grabo", "deepr", "gse", "rigl", "random", "set", "alpha", "dense"]
    assert sorted(names, key=order) == [
        "dense", "random", "set", "deepr", "rigl", "gse", "gse-grabo", "topkast", "gse-own", "alpha", "zeta",
    ]  # fmt: skip
