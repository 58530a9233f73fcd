"""Train every connection: the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.method.interface import Method


@option
class Dense(Method):
    """Keep the network as its family initialises it; no layer has a topology."""

    why: ClassVar[str] = "which trains every connection"
    start: ClassVar[str] = "none"
    budget: ClassVar[bool] = False

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"scope", "backend", "strict"}
