"""Numbers in 8 bits: how far they are off, that zero stays zero, and that they move between blocks unchanged."""

from __future__ import annotations

import pytest
import torch

from dstrun.storage.blocks import BLOCK, POSITIVE, RANGE, SIGNED, Grid, packed, unpacked
from dstrun.storage.rounding import Draws

GRIDS = [SIGNED, POSITIVE]


def numbers(grid: Grid, count: int = 40 * BLOCK + 7) -> torch.Tensor:
    """Make numbers over twelve powers of ten, some of them 0."""
    draw = torch.Generator().manual_seed(0)
    made = torch.randn(count, generator=draw) * 10 ** (-12 * torch.rand(count, generator=draw))
    made[::17] = 0
    return made if grid is SIGNED else made.abs()


def draws(count: int, seed: int = 5) -> torch.Tensor:
    return Draws(seed, 0, count, torch.device("cpu")).next()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("drawn", [False, True])
def test_numbers_are_off_by_less_than_a_level(grid: Grid, drawn: bool) -> None:
    values = numbers(grid)
    codes, exponents = packed(values, grid, draws(values.numel()) if drawn else None)
    assert (codes.dtype, codes.shape, exponents.shape) == (grid.dtype, values.shape, (41,))
    found = unpacked(codes, exponents, grid)
    block = torch.nn.functional.pad(values.abs(), (0, -values.numel() % BLOCK)).view(-1, BLOCK).amax(1)
    least = block.repeat_interleave(BLOCK)[: values.numel()] * RANGE
    share = grid.ratio - 1 if drawn else (grid.ratio - 1) / 2
    above = values.abs() > least * grid.ratio**2
    assert (0.3 < above.double().mean() < 0.9).item()
    assert ((found - values).abs()[above] <= share * 1.001 * values.abs()[above]).all()
    assert (found.abs()[~above] <= least[~above] * grid.ratio**3).all()
    assert torch.equal(found == 0, values == 0) or grid is SIGNED
    assert not found[values == 0].any()
    assert (found * values >= 0).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_the_mean_is_the_number(grid: Grid) -> None:
    """Of a number between levels, within five standard deviations; below the smallest level of a signed block, too."""
    for value in [0.37, 0.0123] + ([-3e-6] if grid is SIGNED else []):
        block = torch.full((BLOCK * 512,), value)
        block[::BLOCK] = 1.0
        found = unpacked(*packed(block, grid, draws(block.numel())), grid).double()
        kept = found.view(-1, BLOCK)[:, 1:]
        assert abs(float(kept.mean()) - value) < 5 * float(kept.std()) / kept.numel() ** 0.5 + 1e-6 * abs(value)
        assert float(kept.std()) > 0


def test_a_small_second_moment_does_not_become_zero() -> None:
    values = torch.full((BLOCK,), 1e-20)
    values[0] = 1.0
    assert (unpacked(*packed(values, POSITIVE, draws(BLOCK)), POSITIVE) > 0).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_what_is_packed_moves_to_other_blocks_unchanged(grid: Grid) -> None:
    """Exactly, but for what is less than ``RANGE`` of the largest in its new block."""
    values = unpacked(*packed(numbers(grid), grid, None), grid)
    values[values.abs() < 1e-3] = 0
    moved = values[torch.randperm(values.numel(), generator=torch.Generator().manual_seed(1))]
    assert torch.equal(unpacked(*packed(moved, grid, None), grid), moved)
    assert torch.equal(unpacked(*packed(moved, grid, draws(moved.numel())), grid), moved)
