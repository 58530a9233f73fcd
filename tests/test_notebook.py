"""The notebook runs in a kernel, and shows frames, a table and a figure as what is stored of it does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_look.ipynb"


def shown(cell: Any, kind: str) -> str:
    """Return the last output of a cell in one of its forms."""
    return cell["outputs"][-1]["data"][kind]


def kinds(notebook: Any) -> list[list[str]]:
    """Name the forms that the outputs of every cell have, those of its log aside."""
    codes = (cell for cell in notebook.cells if cell["cell_type"] == "code")
    return [[kind for output in cell["outputs"] for kind in sorted(output.get("data", ()))] for cell in codes]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = kinds(notebook)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    assert kinds(notebook) == stored
    cells = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    first, _, frame, table, figure, epochs = cells
    assert "top1" in shown(first, "text/plain")
    assert shown(frame, "text/html").count("<tr") == 2 + 6
    assert shown(table, "text/html").startswith("<table")
    assert "gse" in shown(table, "text/html")
    assert len(figure["outputs"]) == 1
    assert len(shown(figure, "image/png")) > 10_000
    assert shown(epochs, "text/html").count("<tr") == 2 + 5
    assert len(list((tmp_path / "results").glob("default/*/record.json"))) == 12
    assert NOTEBOOK.stat().st_size < 150_000
