"""What is not prunable in a network, one line per reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMED = 8
"""So many are named a line, the largest first; the others are added up."""

HEADS = {"never used in the forward pass": "never used in the forward pass", "frozen": "frozen"}
PLAIN = "no kind that can be pruned"


def not_prunable(parts: Sequence[dict[str, Any]], parameters: int, flops: float) -> list[str]:
    """Return what is not prunable, and its shares.

    Args:
        parts: ``not_prunable`` of a record or plan.
        parameters: of the whole network.
        flops: of a sample's forward pass through the dense network.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        lines.setdefault(HEADS.get(part["why"], "not prunable"), []).append(part)
    order = ("not prunable", *HEADS.values())
    return [f"{head}: {_named(lines[head], parameters, flops)}" for head in order if head in lines]


def _named(parts: list[dict[str, Any]], parameters: int, flops: float) -> str:
    def said(named: list[dict[str, Any]]) -> list[str]:
        """Format the shares of some of them."""
        shares = ((key, sum(part[key] for part in named), whole) for key, whole in sizes)
        return [f"{_percent(part / whole)} of {words[key]}" for key, part, whole in shares if part]

    sizes, words = (("parameters", parameters), ("flops", flops)), {"parameters": "parameters", "flops": "FLOPs"}
    parts = sorted(parts, key=lambda part: (part["parameters"], part["flops"]), reverse=True)
    first = []
    for part in parts[:NAMED]:
        why = [] if part["why"] in (PLAIN, *HEADS) else [part["why"]]
        first.append(f"{part['name'] or 'numbers'} ({', '.join([part['kind'], *why, *said([part])])})")
    if rest := parts[NAMED:]:
        first.append(f"{len(rest)} more ({', '.join(said(rest))})")
    return ", ".join(first)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"
