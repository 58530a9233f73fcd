import pytest
import torch

from dstrun.system.stream import generator, stream


def test_the_same_purpose_has_the_same_seed_for_ever():
    assert stream(0, "topology", 1, 2) == 8068556183902032304


def test_every_part_of_the_purpose_counts():
    seeds = {
        stream(*purpose)
        for purpose in [
            (0,), (1,), (0, 1), (0, "1"), (0, "topology"), (0, "topology", 0), (0, "topology", 1),
            (0, "topology", 1, 0), (0, "topology", 0, 1), (0, "topology", 10), (1, "topology", 1), (0, "weights", 1),
        ]
    }  # fmt: skip
    assert len(seeds) == 12


@pytest.mark.parametrize("step", range(20))
def test_seeds_are_what_a_generator_takes(step):
    assert 0 <= stream(0, "grow", step) < 2**63


def test_generators_of_different_purposes_draw_different_numbers():
    draws = torch.stack([torch.rand(4, generator=generator(0, "grow", step)) for step in range(200)])
    assert draws.flatten().unique().numel() > 790
    # The first draws of consecutive streams are independent uniforms: mean 1/2, standard error 1 / sqrt(12 n).
    assert abs(draws[:, 0].mean() - 0.5) < 4 / (12 * 200) ** 0.5


def test_a_generator_does_not_depend_on_what_was_drawn_before():
    first = torch.rand(3, generator=generator(5, "a"))
    torch.manual_seed(1)
    torch.rand(7, generator=generator(5, "b"))
    assert torch.equal(first, torch.rand(3, generator=generator(5, "a")))
