import pytest
import torch

from dstrun.backend.sparse.kernel import rewire as rewiring
from dstrun.backend.sparse.kernel import transpose as transposing
from dstrun.backend.sparse.kernel.rewire import flat, moved, rewire, split
from dstrun.backend.sparse.pattern import index_type
from dstrun.layer.topology import Topology, number_type

SHAPES = [(1, 7), (60, 30), (3, 40_000)]


def splits(topology):
    outputs, per_output = topology.shape
    rows = torch.empty(outputs + 1, dtype=number_type(topology.count))
    inputs = torch.empty(topology.count, dtype=index_type(per_output))
    split(topology.positions, per_output, rows, inputs)
    return rows, inputs


@pytest.fixture(params=["one thread", "threads"])
def threads(request, monkeypatch):
    if request.param == "threads":
        monkeypatch.setattr(rewiring, "SMALL", 0)
        monkeypatch.setattr(transposing, "SMALL", 0)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@pytest.mark.parametrize("density", [0, 0.1, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_split_and_put_together_again(shape, density, threads):
    topology = Topology.random(shape, round(density * shape[0] * shape[1]), torch.Generator().manual_seed(0))
    rows, inputs = splits(topology)
    assert torch.equal(rows.long().diff(), topology.fan_in())
    assert torch.equal(inputs.long(), topology.positions % shape[1])
    assert torch.equal(flat(rows, inputs, shape[1]), topology.positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.float64])
@pytest.mark.parametrize("density", [0, 0.1, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_rewired_and_moved_as_by_a_dense_tensor(shape, density, dtype, threads):
    draws = torch.Generator().manual_seed(1)
    before = Topology.random(shape, round(density * shape[0] * shape[1]), draws)
    free = torch.ones(before.size, dtype=torch.bool).index_fill_(0, before.positions, False).nonzero().flatten()
    prune = before.positions[torch.rand(before.count, generator=draws) < 0.4]
    grow = free[torch.rand(free.numel(), generator=draws) < 0.1]
    grow = torch.cat([grow, prune[:1]]).sort().values  # what goes may come back
    rows, inputs, source = rewire(*splits(before), shape[1], prune, grow)
    after = before.rewired(prune, grow)
    assert torch.equal(flat(rows, inputs, shape[1]), after.positions)
    assert [rows.dtype, inputs.dtype] == [found.dtype for found in splits(after)]
    dense = torch.zeros(before.size, dtype=dtype)
    values = torch.arange(1, before.count + 1).to(dtype)
    dense[before.positions] = values
    dense[prune] = 0
    assert torch.equal(moved(values, source), dense[after.positions])


@pytest.mark.parametrize(
    ("prune", "grow", "message"),
    [
        ([0], [2], "a pruned connection was not active"),
        ([], [1], "a grown connection was already active"),
        ([1, 1], [2, 3], "a pruned connection was not active, or was named twice"),
        ([1, 4], [2, 2], "a grown connection was already active, or was named twice"),
        ([0, 6], [1, 4], "a pruned connection was not active"),
        ([7], [], "a pruned connection was not active"),
    ],
)
def test_what_makes_no_sense_is_refused(prune, grow, message, threads):
    rows, inputs = splits(Topology((2, 4), torch.tensor([1, 4, 5])))
    with pytest.raises(ValueError, match=message):
        rewire(rows, inputs, 4, *(torch.tensor(given, dtype=torch.int64) for given in (prune, grow)))


@pytest.mark.parametrize(("taps", "groups"), [(1, 1), (3, 1), (1, 2)])
def test_transposed_by_threads_as_by_sorting(taps, groups, threads):
    channels, outputs = 12, 20
    topology = Topology.random((outputs, channels // groups * taps), 100, torch.Generator().manual_seed(2))
    rows, inputs = splits(topology)
    columns, codes, order = transposing.transpose(rows, inputs, taps, channels, groups, outputs)
    expected = transposing.by_sorting(rows, inputs, taps, channels, channels // groups, outputs // groups)
    assert all(
        torch.equal(one.long(), other.long()) for one, other in zip((columns, codes, order), expected, strict=True)
    )
