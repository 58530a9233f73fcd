"""Bandwidth and multiply-adds of this machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dstrun.backend.sparse.kernel.roofline import copies, multiply_adds, reads
from dstrun.bench import machine
from dstrun.bench.arguments import Machine


def test_each_size_is_read_and_copied_and_one_row_counts_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MOVED", 1 << 20)
    monkeypatch.setattr(machine, "PASSES", 100)
    threads = torch.get_num_threads()
    *sizes, (done,) = machine.measure(Machine(kilobytes=(1, 64), rounds=2))
    assert [[(row["kilobytes"], row["implementation"]) for row in rows] for rows in sizes] == [
        [(1, "read"), (1, "copy")],
        [(64, "read"), (64, "copy")],
    ]
    assert [[row["bytes"] for row in rows] for rows in sizes] == [[1 << 20, 2 << 20]] * 2
    assert (done["implementation"], done["bytes"]) == ("multiply-add", 100 * 192 * threads)
    assert all(row["median"] > 0 and row["rounds"] == 2 for rows in (*sizes, [done]) for row in rows)


def test_the_loops_do_what_is_counted() -> None:
    """What is read is summed, what is copied arrives, and multiply-adds give their numbers."""
    x, y, sums = np.arange(512, dtype=np.float32), np.zeros(512, np.float32), np.zeros(2, np.float32)
    reads(x, 3, 2, sums)
    assert sums.tolist() == [3 * x[:256].sum(), 3 * x[256:].sum()]
    copies(x, y, 3, 2)
    assert (y == 2 * x).all()
    multiply_adds(2, 2, sums)
    assert sums.tolist() == [0, 192 * 4]  # 1 + 1 * 1 is 2, 2 + 2 * 1 is 4
