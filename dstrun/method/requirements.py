"""What a method needs of a configuration: known, and checked, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Requirements:
    """Rules of a method; an option overrides what is different.

    Attributes:
        parts: the groups it is composed of, of prune, grow and schedule.
        why: why it takes no others, as the end of a sentence.
        start: what the first step finds: ``sparse``, a random topology; ``all`` connections in the network's own
            initialization; ``none``, no layer ever has a topology.
        budget: whether ``sparsity`` sets how many connections are active at the end.
        dense: why it needs dense storage, as the end of a sentence; empty where it runs on every backend.
        alone: why it trains in a single process, as the end of a sentence; empty where several may share a batch.
        scopes: what ``scope`` may be; both only where it makes a difference.
        grows_at_zero: whether connections appear during training with weight 0.
        exact: whether the end has the budget to the connection; else what comes in channels stays below it.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    why: ClassVar[str] = ""
    start: ClassVar[str] = "sparse"
    budget: ClassVar[bool] = True
    dense: ClassVar[str] = ""
    alone: ClassVar[str] = ""
    scopes: ClassVar[tuple[str, ...]] = ("layer",)
    grows_at_zero: ClassVar[bool] = False
    exact: ClassVar[bool] = True

    @property
    def sparsity_is_learned(self) -> bool:
        """Whether training itself finds how many connections are active at the end."""
        return not self.budget and self.start == "all"

    @property
    def prunes(self) -> bool:
        """Return whether the network at the end has fewer weights than the one chosen, or may have."""
        return self.budget or self.start != "none"

    def allocates(self, scope: str) -> bool:
        """Return whether an allocation sets the layers' counts; with ``start=all`` and one pool, scores do."""
        return self.budget and (self.start == "sparse" or scope == "layer")

    def objection(self, config: dict[str, Any]) -> str:
        """Return why a configuration makes no sense, where the rules above do not: a sentence; empty where it does."""
        return ""

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect here, own or top-level ones: runs that differ in them are the same.

        Args:
            parts: the option chosen in each group, ``None`` where there is none; networks are not among them.
        """
        return set()
