"""What a record found, and nobody asked for, keeps runs apart: the data, the network, the code of an own option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write

from dstrun.report import load
from dstrun.report.compare import Layout, blocks, pivot
from dstrun.report.fields import Field


def rows(root: Path, *records: dict[str, Any]) -> dict[str, int]:
    for seed, record in enumerate(records):
        write(root, record | {"seed": seed}, folder=str(seed))
    return {row.name: len(row.runs) for block in blocks(load.runs(root)) for row in block.rows}


def made(seed: int = 0, **groups: Any) -> dict[str, Any]:
    record = record_of("gse", 0.98, seed, 87.0)
    for group, values in groups.items():
        record[group] = record.get(group, {}) | values
    return record


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"data": {"source": "a" * 64}}, {"data": {"source": "b" * 64}}, "data"),
        ({"data": {"source": "a", "checksum": "c1"}}, {"data": {"source": "b", "checksum": "c2"}}, "data"),
        ({"parameters": {"dense": 2410}}, {"parameters": {"dense": 6347}}, "parameters"),
        ({"network": {"shapes": "a" * 64}}, {"network": {"shapes": "b" * 64}}, "network"),
        ({"code": {"own": {"nets": "a" * 16}}}, {"code": {"own": {"nets": "b" * 16}}}, "code"),
    ],
)
def test_two_seeds_of_other_things_are_never_one_cell(tmp_path: Path, one: Any, other: Any, said: str) -> None:
    found = rows(tmp_path, made(**one), made(**other))
    assert list(found.values()) == [1, 1]
    assert all(f"{said}=" in name for name in found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data": {"source": "a", "checksum": "c"}}, {"data": {"source": "b", "checksum": "c"}}),  # other files of them
        ({"data": {"source": "a", "checksum": "c"}}, {"data": {"source": "a"}}),  # an older record
        ({"data": {"source": "a", "checksum": "c"}}, {}),
        ({"network": {"shapes": "a"}}, {}),
        ({"code": {"own": {}}}, {}),
    ],
)
def test_the_same_and_what_an_older_record_does_not_say_is_one_cell(tmp_path: Path, one: Any, other: Any) -> None:
    assert rows(tmp_path, made(**one), made(**other)) == {"gse": 2}


def test_an_older_record_follows_its_source(tmp_path: Path) -> None:
    found = rows(
        tmp_path, made(data={"source": "a", "checksum": "c1"}), made(data={"source": "b", "checksum": "c2"}),
        made(data={"source": "b"}),
    )  # fmt: skip
    assert found == {"gse (data=c1)": 1, "gse (data=c2)": 2}


def test_networks_of_other_settings_may_have_other_shapes(tmp_path: Path) -> None:
    for seed, width in enumerate((1.0, 2.0)):
        record = made(seed, parameters={"dense": int(1000 * width)}, network={"shapes": f"s{width}"})
        record["config"]["model"]["width"] = width
        write(tmp_path, record, folder=str(seed))
    layout = Layout((Field("method", "label"),), (Field("model.width", "config.model.width"),))
    ((row,),) = [block.rows for block in pivot(load.runs(tmp_path), layout)]
    assert row.name == "gse"
    assert len(row.cells) == 2
