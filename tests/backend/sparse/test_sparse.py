import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from dstrun.backend.sparse import layer as sparse
from dstrun.grow.gradient import Gradient
from dstrun.grow.random import Random
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.growth import GrowthRequest, propose
from dstrun.layer.topology import Topology
from dstrun.optimizer.aged import AgedAdam

LAYERS = {
    "linear": (lambda: nn.Linear(12, 8), (4, 12)),
    "vector": (lambda: nn.Linear(12, 8), (12,)),
    "tokens": (lambda: nn.Linear(12, 8, bias=False), (2, 5, 12)),
    "four": (lambda: nn.Linear(12, 8), (2, 3, 2, 12)),
    "empty": (lambda: nn.Linear(12, 8), (2, 0, 12)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 6, 6)),
    "unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 6, 6)),
    "none": (lambda: nn.Conv2d(4, 6, 3), (0, 4, 6, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)), (2, 4, 8, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=3), (17, 4, 6, 6)),
    "pointwise": (lambda: nn.Conv2d(4, 6, 1), (3, 4, 5, 6)),
    "same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 5, 6)),
    "row": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    "unbatched row": (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
}
layers = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def made(make, density=0.4, seed=0, dtype=torch.float32):
    """Return a sparse layer and the dense one that computes the same."""
    module = make().to(dtype)
    kind = {nn.Linear: sparse.Linear, nn.Conv1d: sparse.Conv1d, nn.Conv2d: sparse.Conv2d}[type(module)]
    draws = torch.Generator().manual_seed(seed)
    count = round(density * module.weight.numel())
    layer = kind.from_dense(module, Topology.random(tuple(module.weight.shape), count, draws))
    return layer, layer.to_dense()


@layers
@pytest.mark.parametrize("kernel", ["fast", "reference"])
def test_outputs_and_gradients_are_those_of_the_dense_layer(make, shape, kernel):
    layer, dense = made(make)
    layer.kernel = kernel
    assert type(dense) is type(make())
    torch.manual_seed(1)
    x = torch.randn(shape)
    mine, true = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = layer(mine), dense(true)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, true.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        layer.grad(), dense.weight.grad.flatten()[layer.topology.positions], rtol=1e-4, atol=1e-4
    )
    if dense.bias is not None:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad, rtol=1e-4, atol=1e-4)


@layers
def test_gradcheck(make, shape):
    layer, _ = made(make, dtype=torch.float64)
    shape = (3, *shape[1:]) if shape[0] == 17 else shape  # seventeen samples would take a minute
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())

    def compute(x, *values):
        names = [name for name, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(compute, (x, *parameters))


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded", "strided"])
def test_layouts_of_the_input(layout):
    layer, dense = made(LAYERS["strided"][0])
    x = torch.randn(2, 4, 8, 8)
    x = {
        "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
        "transposed": lambda: x.transpose(2, 3),
        "expanded": lambda: x[:1].expand(3, 4, 8, 8),
        "strided": lambda: torch.randn(2, 8, 8, 16)[:, ::2, :, ::2],
    }[layout]()
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 96])
def test_extreme_counts(count):
    layer, dense = made(LAYERS["linear"][0], density=count / 96)
    x = torch.randn(5, 12)
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-5)
    layer(x).sum().backward()
    assert layer.grad().shape == (count,)
    assert layer.explored() == count / 96


@layers
def test_dense_and_back(make, shape):
    layer, dense = made(make)
    again = type(layer).from_dense(dense)
    assert torch.equal(again.topology.positions, layer.topology.positions)
    assert torch.equal(again.values(), layer.values())
    assert again.geometry == layer.geometry


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_stand_alone(copied):
    layer, _ = made(LAYERS["conv"][0])
    other = copied(layer)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(layer(x), other(x))
    before = layer.topology.positions.clone()
    free = torch.arange(other.topology.size)[~torch.isin(torch.arange(other.topology.size), before)]
    other.rewire(before[:5], free[:5])
    assert torch.equal(layer.topology.positions, before)


def test_state_of_another_topology_and_count_is_loaded():
    layer, _ = made(LAYERS["grouped"][0], density=0.3)
    other, _ = made(LAYERS["grouped"][0], density=0.6, seed=1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert optimizer.param_groups[0]["params"][0] is other.weight
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(layer(x), other(x))
    other(x).sum().backward()
    optimizer.step()
    assert not torch.equal(layer(x), other(x))


def test_state_of_another_shape_is_refused():
    layer, _ = made(lambda: nn.Linear(12, 8))
    for other in (nn.Linear(20, 8), nn.Linear(12, 9), nn.Linear(70_000, 8)):
        state = made(lambda other=other: other, density=40 / other.weight.numel())[0].state_dict()
        with pytest.raises(RuntimeError, match="not positions"):
            layer.load_state_dict(state)


def test_weights_without_their_positions_are_refused():
    layer, _ = made(lambda: nn.Linear(12, 8))
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict({"weight": torch.zeros(9)}, strict=False)
    layer.weight.data = torch.zeros(9)
    with pytest.raises(RuntimeError, match="9 weights for 38 active"):
        layer(torch.randn(2, 12))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float64, 1e-12), (torch.float16, 0.01)]
)
def test_other_types(dtype, tolerance):
    layer, dense = made(LAYERS["conv"][0])
    layer, dense = layer.to(dtype), dense.double()
    x = torch.randn(2, 4, 6, 6, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert layer.weight.grad.dtype == dtype
    assert layer.grad().dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(y.double(), dense(x.double()), rtol=tolerance, atol=max(tolerance, 1e-6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_fast_kernels_refuse_what_they_cannot_compute(dtype):
    layer, _ = made(LAYERS["linear"][0])
    layer.kernel = "fast"
    with pytest.raises(TypeError, match="fast sparse kernels"):
        layer.to(dtype)(torch.randn(2, 12, dtype=dtype))


def test_sparsify_keeps_the_type_of_the_weights():
    model = nn.Sequential(nn.Linear(5, 4)).double()
    sparse.sparsify(model, [7])
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(12, 8), (2, 11)),
        (lambda: nn.Linear(12, 8), (2, 13)),
        (lambda: nn.Conv2d(4, 6, 3), (2, 3, 6, 6)),
        (lambda: nn.Conv2d(4, 6, 3), (2, 4, 2, 6)),
        (lambda: nn.Conv2d(4, 6, 3), (2, 4, 1, 6)),
        (lambda: nn.Conv2d(4, 6, 3, padding=2), (2, 4, 0, 6)),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make, shape):
    layer, _ = made(make)
    with pytest.raises(ValueError, match="no input of"):
        layer(torch.randn(shape))


def test_parts_that_do_not_fit_are_refused():
    geometry, topology = LinearGeometry((3, 4)), Topology((3, 4), torch.tensor([0, 5]))
    values = torch.zeros(2)
    for wrong in (torch.zeros(3), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match="values"):
            sparse.Linear(geometry, topology, wrong)
    with pytest.raises(ValueError, match="values"):
        sparse.Linear(geometry, Topology((4, 3), topology.positions), values)
    with pytest.raises(ValueError, match="biases"):
        sparse.Linear(geometry, topology, values, torch.zeros(2))


class OfMyOwn(nn.Linear):
    pass


def test_modules_that_cannot_be_replaced_are_refused():
    with pytest.raises(TypeError, match="cannot make a sparse layer"):
        sparse.Conv2d.from_dense(nn.Conv2d(2, 2, 3, padding_mode="circular"))
    with pytest.raises(TypeError, match="cannot make a sparse layer"):
        sparse.Conv2d.from_dense(nn.Conv2d(2, 2, 2, padding="same"))
    with pytest.raises(TypeError, match="OfMyOwn"):
        sparse.sparsify(nn.Sequential(OfMyOwn(2, 2)), [3])
    with pytest.raises(TypeError, match="out_proj"):
        sparse.sparsify(nn.Sequential(nn.MultiheadAttention(4, 2)), [3])
    with pytest.raises(ValueError, match="itself a layer"):
        sparse.sparsify(nn.Linear(2, 2), [3])
    with pytest.raises(TypeError, match="cannot make a sparse Linear"):
        sparse.Linear.from_dense(nn.Conv2d(2, 2, 1))
    for counts in ([3], [3, 3, 3]):
        with pytest.raises(ValueError, match="zip"):
            sparse.sparsify(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), counts)


class Mine(nn.Module):
    """A network with layers in every kind of container, one of them used twice and one registered twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}) for _ in range(2))
        self.again = self.blocks[0]["a"]
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        for block in self.blocks:
            x = x + block["b"](self.again(block["a"](x)).relu_())
        return self.head(x)


def test_a_plain_loop_on_a_network_of_ones_own_learns():
    torch.manual_seed(0)
    model = Mine()
    found = sparse.sparsify(model, [30, 30, 30, 30, 30, 20], seed=1)
    assert [layer.name for layer in found] == ["stem.0", *(f"blocks.{i}.{n}" for i in (0, 1) for n in "ab"), "head"]
    assert not [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert model.again is model.blocks[0]["a"] is found[1]
    x, y = torch.randn(60, 1, 5, 5), torch.arange(60) % 3
    x[:, 0, 0, 0] += 6 * y
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(120):
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_rewiring_carries_state_over_and_starts_the_grown_at_zero():
    layer, _ = made(LAYERS["linear"][0])
    layer.optimizer = AgedAdam(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 12)).square().sum().backward()
    layer.optimizer.step()
    old = layer.topology
    free = [p for p in range(96) if p not in old.positions.tolist()]
    prune, grow = old.positions[[3, 0, 7]], torch.tensor([free[9], free[2]])
    state = layer.optimizer.state[layer.weight]
    kept = {
        p: v for p, v in zip(old.positions.tolist(), zip(layer.values(), state["exp_avg"], strict=True), strict=True)
    }
    layer.rewire(prune, grow)
    state = layer.optimizer.state[layer.weight]
    assert layer.count == old.count - 1
    assert set(layer.topology.positions.tolist()) == set(old.positions.tolist()) - set(prune.tolist()) | set(
        grow.tolist()
    )
    for position, value, average in zip(
        layer.topology.positions.tolist(), layer.values(), state["exp_avg"], strict=True
    ):
        assert (value, average) == (kept[position] if position not in grow else (0, 0))
    assert layer.weight.grad is None
    layer.optimizer.zero_grad()
    layer(torch.randn(4, 12)).square().sum().backward()
    layer.optimizer.step()


def test_no_proposal_before_an_armed_backward():
    layer, _ = made(LAYERS["linear"][0])
    with pytest.raises(RuntimeError, match="no backward pass has run since growth was requested"):
        layer.proposal()
    with pytest.raises(RuntimeError, match="no gradient yet"):
        layer.grad()
    proposal = propose(layer, GrowthRequest(Random(), 5, torch.Generator().manual_seed(0), layer.topology.positions))
    assert proposal.positions.numel() == 5
    assert not torch.isin(proposal.positions, layer.topology.positions).any()


def test_growth_by_gradient_refuses_a_layer_used_twice_in_a_pass() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    (layer, _) = sparse.sparsify(net, [9, 9])
    layer.request_growth(GrowthRequest(Gradient(), 3, torch.Generator()))
    with pytest.raises(
        RuntimeError, match="0 is used twice in a forward pass: growing by gradient needs backend=masked there"
    ):
        net(net(torch.randn(4, 6))).sum().backward()
