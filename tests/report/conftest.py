"""A sweep as it lies on disk, for every test of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixture import TOP1, record_of, write, write_status

from dstrun.report import load


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Write the sweep; gse at 98 % lacks its third seed, which failed."""
    root = tmp_path / "results"
    for (label, sparsity), values in TOP1.items():
        for seed, top1 in enumerate(values):
            write(root, record_of(label, sparsity, seed, top1))
    write_status(root, "default/resnet56-cifar10-gse-s0.98-seed2-77aa01", "failed", message="out of memory")
    return root


@pytest.fixture
def sweep(results: Path) -> list[load.Run]:
    """Load the sweep."""
    return load.runs(results)
