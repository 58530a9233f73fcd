"""What a run has computed, apart from times and memory."""

from __future__ import annotations

import csv
from pathlib import Path

MEASURED = ("seconds", "peak_bytes", "resident_peak_bytes")


def results(folder: Path) -> tuple[list[dict[str, str]], str]:
    """Return the rows of epochs without what is measured, and the text of the rows of topologies."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{key: value for key, value in row.items() if key not in MEASURED} for row in csv.DictReader(file)]
    return rows, (folder / "topology.csv").read_text()
