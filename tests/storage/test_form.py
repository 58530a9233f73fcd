"""Numbers come back from their forms as they should: flags exactly, blocks right in the mean."""

from __future__ import annotations

import pytest
import torch

from dstrun.storage.form import decode, encode, pack_bits, sift, unpack_bits

DTYPES = [torch.float32, torch.bfloat16]
"""One that compiled code rounds, and one that PyTorch does, as on a GPU."""


@pytest.mark.parametrize("length", [1, 8, 1001])
def test_flags_are_bits(length: int) -> None:
    flags = torch.rand(length) > 0.5
    bits = pack_bits(flags)
    assert bits.numel() == -(-length // 8)
    assert torch.equal(unpack_bits(bits, length), flags)
    x = torch.full((length,), torch.nan)
    assert torch.equal(sift(x, bits).isnan(), flags)
    assert torch.equal(sift(torch.ones(length, dtype=torch.float16), bits).bool(), flags)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("levels", [255, 15])
def test_blocks_round_each_number_to_a_neighbouring_step_and_right_in_the_mean(levels: int, dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(300), 1e3 + torch.rand(256), torch.full((256,), -2.5), torch.randn(99)]).to(dtype)
    draws = torch.stack([decode(encode(x, levels, seed << 40)).double() for seed in range(600)])
    blocks = encode(x, levels, 7)
    assert blocks.nbytes == (len(x) if levels == 255 else -(-len(x) // 2)) + 8 * -(-len(x) // 256)
    step = blocks.step.double().repeat_interleave(256)[: len(x)]
    ulp = torch.finfo(dtype).eps * x.double().abs()
    assert (torch.abs(draws - x) <= step * 1.001 + ulp).all()
    spread = draws.std(0)
    assert (spread <= step / 2 * 1.1 + ulp).all()
    error = (draws.mean(0) - x) / (spread / 600**0.5).clamp_min(1e-12)
    if dtype == torch.float32:  # of others the result is rounded again
        moved = spread > 0
        assert moved.sum() > 300
        assert error[moved].abs().max() < 5
        assert error[moved].mean().abs() < 5 / moved.sum() ** 0.5


def test_noise_differs_by_seed_and_place_and_the_same_seed_repeats_it() -> None:
    x = torch.full((4096,), 0.4)
    x[::256], x[1::256] = 0, 15  # steps of 1: codes are 0 or 1
    one, same, other = (decode(encode(x, 15, seed)) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    free = x == 0.4
    a, b = one[free], other[free]
    assert a.mean() == pytest.approx(0.4, abs=0.04)
    for first, second in ((a, b), (a[1:], a[:-1]), (a[2:], a[:-2])):
        together = torch.corrcoef(torch.stack([first, second]))[0, 1]
        assert abs(together) < 5 / len(first) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_surfaces_in_its_block_alone(bad: float, dtype: torch.dtype) -> None:
    x = torch.randn(3 * 256, dtype=dtype)
    x[300] = bad
    for levels in (255, 15):
        found = decode(encode(x, levels, 1))
        assert found[256:512].isnan().all()
        assert found[:256].isfinite().all()
        assert found[512:].isfinite().all()
