"""The Python examples of the documentation run as printed, and its networks have the sizes that it says."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

import dstrun
from dstrun.config.composition import compose
from dstrun.run.blueprint import Blueprint

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("python.md", "library.md")


def test_library_example_trains() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(), re.DOTALL)
    torch.manual_seed(0)
    found: dict = {}
    first = code.replace("range(1, 61)", "range(1, 2)")
    exec(first, begin := {})
    torch.manual_seed(0)
    exec(code, found)
    assert found["loss"] < begin["loss"] / 2
    assert [layer.count for layer in found["layers"]] == [layer.count for layer in begin["layers"]]
    assert all(layer.optimizer.state[layer.weight] for layer in found["layers"])


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    found: dict = {}
    for block in blocks:
        block = block.replace('"epochs=10"', '"epochs=1", "wandb=disabled", "threads=1"')
        exec(block.replace("1000", "100"), found)
    assert (tmp_path / "sparsity.pdf").stat().st_size > 1000
    assert found["sparsifier"].step == 100
    assert found["sparsifier"].sparsity == pytest.approx(0.98, abs=0.001)


def test_pages_of_the_library_name_all_that_is_public() -> None:
    tables = [(DOCS / page).read_text().partition("| name |")[2].partition("\n\n")[0] for page in PAGES]
    cells = [cell for table in tables for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)]
    named = [name for cell in cells for name in re.findall(r"`(\w+)", cell)]
    assert sorted(named) == sorted(dstrun.PUBLIC)
    assert set(dstrun.PUBLIC) <= set(dir(dstrun))
    for name, where in dstrun.PUBLIC.items():
        found = getattr(dstrun, name)
        if name == "train":  # a room of the package, too, which can be called
            found = import_module("dstrun.library.training").train
        assert f"{found.__module__}.{found.__qualname__}" == f"dstrun.{where}"
    with pytest.raises(AttributeError, match="no attribute 'Sparse'"):
        dstrun.Sparse  # noqa: B018


def test_networks_have_the_sizes_that_the_page_says() -> None:
    text = (DOCS / "models.md").read_text()
    rows = re.findall(r"^\| `([\w.= ]+)` (.*)\| ([\d,]+) \| ([\d,.]+) M", text, re.MULTILINE)
    assert len(rows) == 16
    for words, what, parameters, macs in rows:
        said = words.split() if "=" in words else [f"model={words}"]
        said = said if said[0].startswith("model=") else ["model=wideresnet", *said]
        dataset = "imagenet" if "224" in what else "cifar10"
        cost = Blueprint(compose([*said, f"dataset={dataset}", "method=dense"])).cost
        assert f"{cost.parameters:,}" == parameters, words
        assert f"{cost.forward() / 2e6:,.1f}" == macs, words
