"""NumPy and PyTorch, imported at first use.

A configuration is checked whole without PyTorch, which takes seconds to import: whatever options are made of takes
them from here. A class derived from one of theirs needs it at once, and so a module of its own.
"""

from __future__ import annotations

from importlib import import_module
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


if TYPE_CHECKING:
    import numpy as np
    import torch as torch
else:
    np, torch = Lazy("numpy"), Lazy("torch")
