"""Figures of a paper from finished runs: every seed visible, and rows told apart by hue, marker and dash.

A preset is drawn within ``sheet``, from all runs there are: it picks those that it is for, and keeps apart what differs
in more than its axes and the seed.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from dstrun.report.figure import kind
from dstrun.report.figure.asked import Asked, asking
from dstrun.report.figure.canvas import drawn, save, sheet, written
from dstrun.report.figure.preset import Preset, caption

__all__ = ["PRESETS", "Asked", "Preset", "asking", "caption", "drawn", "save", "sheet", "written"]


def _presets() -> dict[str, Preset]:
    names = [module.name for module in iter_modules(kind.__path__)]
    found: dict[str, Preset] = {name: import_module(f"{kind.__name__}.{name}").PRESET for name in names}
    return dict(sorted(found.items(), key=lambda item: item[1].place))


PRESETS = _presets()
"""Every module of ``kind`` by its name, in the order of the page."""
