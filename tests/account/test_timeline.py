"""What is held over time is split by what it is for: by events made by hand, and by those of small networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dstrun.account.recorded import address, recorded
from dstrun.account.timeline import PARTS, ROWS, Event, Timeline, text, timeline

CPU = torch.device("cpu")
MB = 2**20


def held(found: Timeline, **parts: int) -> None:
    assert found.at_peak == dict.fromkeys(PARTS, 0) | parts
    assert found.peak == sum(parts.values())


def test_a_step_by_hand() -> None:
    """x (20) is saved, y (5) is not; the gradient (8) takes the place of nothing; the kernel has a buffer (3)."""
    forward = [Event(0, 1, 20, 0), Event(1, 2, 5, 0), Event(2, 2, -5, 0)]
    backward = [Event(3, 3, 8, 7), Event(4, 3, 0, 7), Event(5, 4, 3, 8), Event(6, 4, -3, 8), Event(7, 1, -20, 8)]
    found = timeline([*forward, *backward, Event(8, 3, -8)], {9: ("model", 100)}, {9: ("model", 100)}, {"method": 4})
    held(found, model=100, method=4, activation=20, optimizer=8, transient=3)
    assert found.activations == 20
    assert [sum(row[2:]) for row in found.rows] == [104, 124, 129, 124, 132, 135, 132, 112, 104]


def test_what_replaces_known_memory_is_of_its_part_at_once() -> None:
    """An update makes new indices (12) before it drops the old ones (10); what nobody knew is passed over."""
    events = [Event(0, 2, 12), Event(1, 1, -10), Event(2, 5, -1000)]
    found = timeline(events, {1: ("index", 10)}, {2: ("index", 12)}, {})
    held(found, index=22)
    assert found.rows[-1][2 + PARTS.index("index")] == 12


def test_what_lies_where_something_else_is_allocated_was_released() -> None:
    """The profiler misses some releases on a GPU: 20 at address 1 are gone when 8 are allocated there."""
    found = timeline([Event(0, 1, 20), Event(1, 2, 5), Event(2, 1, 8), Event(3, 1, -8)], {}, {}, {})
    assert [sum(row[2:]) for row in found.rows] == [0, 20, 25, 13, 5]


def test_a_recomputation_saves_too() -> None:
    """In node 5 of the backward pass, 30 are made for autograd and kept, 2 are not."""
    events = [Event(0, 1, 4), Event(1, 2, 30, 5, recorded=True), Event(2, 3, 2, 5), Event(3, 3, -2, 5)]
    events += [Event(4, 4, 1, 5, recorded=True), Event(5, 2, -30, 6), Event(6, 4, -1, 6), Event(7, 1, -4, 6)]
    held(timeline(events, {}, {}, {}), activation=34, transient=2)


def test_rows_are_bounded_and_keep_the_peak() -> None:
    events = [Event(n, n, 1) for n in range(1000)] + [Event(2000, 5000, 500), Event(2001, 5000, -500)]
    found = timeline(events, {}, {}, {})
    assert len(found.rows) <= ROWS + 2
    assert max(sum(row[2:]) for row in found.rows) == found.peak == 1500
    assert text({"step": found.rows}).splitlines()[0] == "phase,event,ms," + ",".join(PARTS)
    assert len(text({"step": found.rows}).splitlines()) == 1 + len(found.rows)


def test_allocations_are_told_with_what_they_are_for() -> None:
    """Old memory that is dropped, memory that takes its place, and blocks that come and go."""
    old = torch.empty(3 * MB, dtype=torch.uint8)
    before = {address(old): ("model", old.nbytes)}
    with recorded(CPU, lasting=(t for t in [old])) as events:
        new = torch.empty(5 * MB, dtype=torch.uint8)
        del old
        torch.empty(2 * MB, dtype=torch.uint8)
    found = timeline(events, before, {address(new): ("model", new.nbytes)}, {})
    held(found, model=8 * MB)
    assert [sum(row[2:]) for row in found.rows] == [3 * MB, 8 * MB, 5 * MB, 7 * MB, 5 * MB]


@pytest.mark.parametrize("block", [False, True])
def test_a_checkpointed_block_holds_its_activations_only_while_it_is_gone_back_through(block: bool) -> None:
    """Two equal halves: with checkpoints one at a time is held, and what their inputs take."""
    net = nn.ModuleList([nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(8))) for _ in "ab"])
    x = torch.randn(512, 64)
    with recorded(CPU, net.parameters()) as events:
        y = x
        for half in net:
            y = checkpoint(half, y, use_reentrant=False) if block else half(y)
        y.sum().backward()
        del y
    found = timeline(events, {}, {address(p): ("model", p.nbytes) for p in net.parameters()}, {})
    assert found.at_peak["optimizer"] <= sum(p.nbytes for p in net.parameters())
    if block:  # eight of a half, its input and the result; one more while PyTorch leaves the recomputation
        assert 10 <= found.activations / x.nbytes <= 11.2
    else:
        assert found.activations == pytest.approx(16 * x.nbytes, rel=0.01)
