from __future__ import annotations

from dstrun.cli.help import options
from dstrun.report.style import METHODS, order, style


def test_known_methods_look_different_and_every_preset_is_known() -> None:
    assert len(set(METHODS.values())) == len(METHODS)
    assert set(options("method")) - {"dst"} <= METHODS.keys()


def test_an_unknown_method_has_its_own_look_whatever_stands_beside_it() -> None:
    # Written out, for a figure of next year must look like one of today.
    assert style("mine") == ("#cc79a7", "P")
    assert style("mine") != style("ours")


def test_order() -> None:
    names = ["zeta", "topkast", "gse-own", "gse-grabo", "deepr", "gse", "rigl", "random", "set", "alpha", "dense"]
    assert sorted(names, key=order) == [
        "dense", "random", "set", "deepr", "rigl", "gse", "gse-grabo", "topkast", "gse-own", "alpha", "zeta",
    ]  # fmt: skip
