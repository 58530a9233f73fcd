"""NumPy and PyTorch, imported at first use.

A configuration is checked whole without PyTorch, which takes seconds to import: whatever options are made of takes
them from here. A class derived from one of theirs needs it at once, and so a module of its own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Lazy:
    """Stands in for a module, whose attributes it looks up at every access."""

    def __init__(self, name: str) -> None:
        self.__name = name
        self.__module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self.__module is None:
            self.__module = import_module(self.__name)
        return getattr(self.__module, attribute)


class Announced:
    """Finds PyTorch on behalf of whoever imports it first, and says so while it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where PyTorch is; ``None`` of other modules."""
        if name != "torch":
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is None or found.loader is None:
            return found
        load = found.loader.exec_module

        def announced(module: ModuleType) -> None:
            from dstrun.system.progress import doing

            sys.meta_path.remove(Announced)
            with doing("loading PyTorch"):
                load(module)

        found.loader.exec_module = announced  # type: ignore[method-assign]
        return found


def announce() -> None:
    """Print a notice whenever PyTorch is loaded from now on."""
    if "torch" not in sys.modules and Announced not in sys.meta_path:
        sys.meta_path.insert(0, Announced)


if TYPE_CHECKING:
    import numpy as np
    import torch as torch
else:
    np, torch = Lazy("numpy"), Lazy("torch")
