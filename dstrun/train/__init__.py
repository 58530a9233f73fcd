"""The training loop and what it needs: evaluation, precision, random streams, checkpoints.

``dstrun.train(...)`` trains a run (``dstrun.library.training``): this package and that function share a name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *words: str, **settings: Any) -> dict[str, Any]:
        """Train one run, as ``dstrun.library.training.train`` says."""
        from dstrun.library.training import train

        return train(*words, **settings)


sys.modules[__name__].__class__ = _Room
