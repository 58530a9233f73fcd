import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrun.backend.sparse.explored import SMALLEST, Explored
from dstrun.layer.topology import Topology


def drawn(shape, count, seed=0):
    return Topology.random(shape, count, torch.Generator().manual_seed(seed))


@given(count=st.integers(0, 512), grown=st.lists(st.integers(0, 511), max_size=40))
@settings(derandomize=True, deadline=None)
def test_small_layers_are_followed_in_full(count, grown):
    topology = drawn((16, 32), count)
    explored = Explored(topology, 32)
    assert explored.every == 1
    assert explored.share() == count / 512
    ever = set(topology.positions.tolist())
    for position in grown:
        explored.add(torch.tensor([position]))
        ever.add(position)
    assert explored.share() == len(ever) / 512


@pytest.mark.parametrize("shape", [(300, 500), (64, 32, 3, 3), (1009, 211)])
def test_a_sample_of_no_more_than_a_quarter_gives_an_unbiased_estimate(shape):
    topology = drawn(shape, 4000)
    per_output = topology.size // shape[0]
    explored = Explored(topology, per_output)
    assert explored.every > 1
    assert per_output % explored.every
    followed = torch.arange(0, topology.size, explored.every)
    assert SMALLEST < followed.numel() <= 1000
    assert followed.remainder(per_output).unique().numel() > 0.9 * min(per_output, followed.numel()) - 300
    shares = []
    for seed in range(50):
        shares.append(Explored(drawn(shape, 4000, seed), per_output).share())
    error = (4000 / topology.size / followed.numel()) ** 0.5
    assert sum(shares) / 50 == pytest.approx(4000 / topology.size, abs=4 * error / 50**0.5)
    explored.add(torch.arange(topology.size))
    assert explored.share() == 1


def test_what_is_loaded_counts_as_before_whatever_the_layer_was_made_with():
    one, other = Explored(drawn((300, 500), 10_000), 500), Explored(drawn((300, 500), 3000, 1), 500)
    assert one.every != other.every
    other.load_state(one.state())
    assert other.share() == one.share()
    for explored in (one, other):
        explored.add(torch.arange(0, 150_000, 2))
    assert other.share() == one.share()
