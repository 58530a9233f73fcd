"""Train a random topology that never changes."""

from __future__ import annotations

from typing import ClassVar

from dstrun.method.procedure import Procedure, Setting
from dstrun.option import option


@option
class Static:
    """Draw the topology once, by ``allocation``."""

    parts: ClassVar[tuple[str, ...]] = ("allocation",)
    why: ClassVar[str] = "whose topology never changes"

    def procedure(self, setting: Setting) -> Procedure:
        """Do nothing around the steps."""
        return Procedure()
