"""A sweep as it lies on disk, for every test of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixture import write_results

from dstrun.report import load


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Write the sweep."""
    return write_results(tmp_path / "results")


@pytest.fixture
def sweep(results: Path) -> list[load.Run]:
    """Load the sweep."""
    return load.runs(results)
