"""A paper's protocol: ``protocol=heddes2024`` means the file that its folder has for the method. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

GROUP = "protocol"


def resolve(overrides: Sequence[Override], options: Sequence[str]) -> list[str]:
    """Give the words of a run with its protocol's name made that of a file.

    ``protocol=P`` stands for ``P/DATASET_METHOD``, ``P/METHOD`` or ``P`` itself, the first that there is. Each is a
    file of Hydra's, so that the words given back compose without this module.

    Args:
        overrides: the words of one run; data set and method are the program's own where they say none.
        options: every file of the group: ``["evci2020", "evci2020/rigl", ...]``.
    """
    chosen = {"dataset": "cifar10", "method": "dst"}
    chosen |= {o.key_or_group: o.value() for o in overrides if o.key_or_group in (*chosen, GROUP)}
    words = [o.input_line or "" for o in overrides]
    name, method = chosen.get(GROUP), chosen["method"]
    if not isinstance(name, str) or "/" in name:
        return words
    files = (f"{name}/{chosen['dataset']}_{method}", f"{name}/{method}", name)
    found = next((file for file in files if file in options), name)
    return [f"{GROUP}={found}" if o.key_or_group == GROUP else w for o, w in zip(overrides, words, strict=True)]
