from __future__ import annotations

from dstrun.report.style import METHODS, order, style


def test_known_methods_look_different() -> None:
    assert len({color for color, _ in METHODS.values()}) == len(METHODS)
    assert len({marker for _, marker in METHODS.values()}) == len(METHODS)


def test_an_unknown_method_has_its_own_look_whatever_stands_beside_it() -> None:
    # Written out, for a figure of next year must look like one of today.
    assert style("snfs") == ("#b9ac70", ">")
    for name in ("snfs", "mine", "topkast", "deepr"):
        color, marker = style(name)
        assert color not in {known for known, _ in METHODS.values()}
        assert marker not in {known for _, known in METHODS.values()}


def test_order() -> None:
    names = ["topkast", "gse-own", "gse-grabo", "deepr", "gse", "gradient", "rigl", "random", "set", "static", "dense"]
    assert sorted(names, key=order) == [
        "dense", "static", "set", "random", "rigl", "gradient", "gse", "gse-grabo", "gse-own", "deepr", "topkast",
    ]  # fmt: skip
