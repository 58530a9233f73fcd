"""Train a random topology that never changes."""

from __future__ import annotations

from typing import ClassVar

from dstrun.method.procedure import Method
from dstrun.option import option


@option
class Static(Method):
    """Draw the topology once, by ``allocation``."""

    why: ClassVar[str] = "whose topology never changes"
