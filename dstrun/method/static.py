"""Train a random topology that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.method.interface import Method


@option
class Static(Method):
    """Draw the topology once, by ``allocation``."""

    why: ClassVar[str] = "whose topology never changes"

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"scope", "strict"}
