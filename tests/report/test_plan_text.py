from __future__ import annotations

import csv

from dstrun.report.format import render
from dstrun.report.plan import LAYERS, layer_blocks
from dstrun.report.terminal import Block


def layer(name: str, active: int) -> dict[str, object]:
    same = {"shape": "4x4", "connections": 16, "density": active / 16, "macs": 16, "active_macs": active}
    return {"name": name, "active": active} | same


def test_neighbors_alike_share_a_row_for_readers_only() -> None:
    layers = [layer("a", 4), layer("b.0", 3), layer("b.1", 3), layer("b.2", 3), layer("c", 4)]
    block, note = layer_blocks(layers)
    assert isinstance(block, Block)
    assert [(row["name"], row["layers"], row["active"]) for row in block.rows] == [
        ("a", 1, 4), ("b.0 to b.2", 3, 3), ("c", 1, 4),
    ]  # fmt: skip
    assert isinstance(note, str)
    assert len(list(csv.DictReader(render(layers, LAYERS, "csv").splitlines()))) == 5


def test_layers_that_all_differ_are_listed_as_they_are() -> None:
    layers = [layer("a", 4), layer("b", 3), layer("c", 4)]
    (block,) = layer_blocks(layers)
    assert isinstance(block, Block)
    assert list(block.columns) == LAYERS
