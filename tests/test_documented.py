"""The Python examples of the documentation run as printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch

DOCS = Path(__file__).parents[1] / "docs"


def test_library_example_trains() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "sparse.md").read_text(), re.DOTALL)
    torch.manual_seed(0)
    found: dict = {}
    first = code.replace("range(1, 61)", "range(1, 2)")
    exec(first, begin := {})
    torch.manual_seed(0)
    exec(code, found)
    assert found["loss"] < begin["loss"] / 2
    assert [layer.count for layer in found["layers"]] == [layer.count for layer in begin["layers"]]
    assert all(layer.optimizer.state[layer.weight] for layer in found["layers"])
