"""Train every connection: the reference."""

from __future__ import annotations

from typing import ClassVar

from dstrun.method.procedure import Procedure, Setting
from dstrun.option import option


@option
class Dense:
    """Leave the network as its family initialises it; no layer has a topology."""

    parts: ClassVar[tuple[str, ...]] = ()
    why: ClassVar[str] = "which trains every connection"

    def procedure(self, setting: Setting) -> Procedure:
        """Do nothing around the steps."""
        return Procedure()
