import pytest
import torch
from method_setting import setting
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.pruning import EmptyLayer
from dstrun.method.structured.proximal import proximal_step
from dstrun.method.structured.sss import Factors
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError

WORDS = ["method=sss", "dataset=digits", "model=resnet20", "model.width=0.25", "epochs=4", "threads=1"]
WITH = "makes no sense with method=sss"


def test_a_step_by_hand():
    """Rate 0.1, gamma 2: threshold 0.2. f - 0.1 g: 0.5, 0.1, 0.15, 1 to z 0.3, 0, 0, 0.8; momentum 0.5."""
    f, g = torch.tensor([1.0, 0.1, 0.2, 0.5]), torch.tensor([5.0, 0.0, 0.5, -5.0])
    v = torch.tensor([0.2, 0.0, 0.6, 0.0])
    moved, velocity = proximal_step(f, g, v, 0.1, 2.0, 0.5)
    assert velocity.tolist() == pytest.approx([0.3 - 1 + 0.1, -0.1, -0.2 + 0.3, 0.8 - 0.5])
    assert moved.tolist() == pytest.approx([0, 0, 0.05, 0.8 + 0.15], abs=1e-6)  # the first two would be negative


def test_factors_are_never_negative():
    """A gradient that pushes far below zero, twice the threshold, leaves a factor at 0, from where it can come back."""
    f, v = torch.tensor([0.05]), torch.zeros(1)
    for _ in range(3):
        f, v = proximal_step(f, torch.tensor([5.0]), v, 0.1, 1.0, 0.9)
        assert f.item() == 0
    for _ in range(9):
        f, v = proximal_step(f, torch.tensor([-5.0]), v, 0.1, 1.0, 0.9)
    assert f.item() > 0


def test_without_penalty_it_is_nesterov_momentum():
    torch.manual_seed(0)
    f = nn.Parameter(torch.rand(5))  # on its way to 1 it stays above 0
    reference = nn.Parameter(f.detach().clone())
    sgd = torch.optim.SGD([reference], 0.1, 0.9, nesterov=True)
    x, v = f.detach().clone(), torch.zeros(5)
    for _ in range(6):
        g = (reference.detach() - 1).clone()
        reference.grad = g
        sgd.step()
        x, v = proximal_step(x, x - 1, v, 0.1, 0.0, 0.9)
        torch.testing.assert_close(x, reference.detach())


def test_at_zero_twice_it_is_exactly_zero():
    f, v = torch.tensor([0.03, 1.0]), torch.tensor([0.017, 0.0])
    for _ in range(3):
        f, v = proximal_step(f, torch.tensor([0.1, -100.0]), v, 0.1, 1.0, 0.9)
    assert f[0] == 0
    assert f[1] != 0


def small(strict=False, last=3, gamma=1.0):
    """Make a 2-4-2 network, of which channels 1 and 3 carry nothing, and its factors; a threshold of 0.6 a step."""
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    layers = masked.wrap(net, torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), 0.6)
    return net, layers, Factors(setting(layers, model=net, optimizer=optimizer, strict=strict), gamma, 0.6, 0.0, last)


def take(procedure, step):
    """Take a step as the training loop does: the method's own optimizers, then the hook, then no gradients."""
    for optimizer in procedure.own:
        optimizer.step()
    update = procedure.after_step(step)
    for optimizer in procedure.own:
        optimizer.zero_grad()
    return update


def test_channels_at_zero_go_and_the_outputs_stay():
    net, layers, procedure = small()
    x = torch.randn(5, 2)
    torch.testing.assert_close(net(x), net[2](torch.relu(net[0](x))))
    for step in (1, 2, 3):
        (factor,) = procedure.factors
        factor.grad = torch.tensor([-1.0, 0.0, -1.0, 0.0])  # as strong as the penalty
        before = net(x)
        update = take(procedure, step)
        assert factor.grad is None
    assert factor.tolist() == pytest.approx([1, 0, 1, 0])
    torch.testing.assert_close(net(x), before)
    assert [(c.active, c.pruned) for c in update.changes] == [(4, 4), (4, 4)]
    assert layers[0].topology.positions.tolist() == [0, 1, 4, 5]
    assert layers[1].topology.positions.tolist() == [0, 2, 4, 6]
    assert not factor.requires_grad
    assert take(procedure, 4) is None
    assert factor.tolist() == pytest.approx([1, 0, 1, 0])


def test_a_layer_without_channels_is_refused_if_strict():
    _, layers, procedure = small(strict=True, last=2)
    for step in (1, 2):
        procedure.factors[0].grad = torch.zeros(4)
        if step == 1:
            assert take(procedure, step) is None
    with pytest.raises(EmptyLayer):
        take(procedure, 2)
    assert layers[0].count == 8


def test_a_run_ends_sparse_by_gamma_alone():
    """With a rate that stays high factors vanish within 44 steps; factors are no parameters of the optimizer."""
    found = []
    for gamma in (0.0, 0.05):
        made = compose([*WORDS, f"method.gamma={gamma}", "method.end=0.75", "optimizer.lr_schedule=constant"])
        training = assemble(made, torch.device("cpu"))
        training.model.train()
        while training.step < training.total_steps:
            training.take_step()
        factors = [p for name, p in training.model.named_parameters() if name.endswith("factor")]
        assert len(factors) == 9
        assert not {id(f) for f in factors} & {id(p) for g in training.optimizer.param_groups for p in g["params"]}
        found.append(1 - sum(training.active()) / sum(training.sizes))
    assert found[0] == 0 < found[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sparsity=0.5"], f"sparsity=0.5 {WITH}, whose sparsity follows from method.gamma: leave it at 0"),
        (["method.factor_lr=0"], "method.factor_lr=0 must be above 0"),
        (["method.gamma=-1"], "method.gamma=-1 must be at least 0"),
        (["method.end=0"], "method.end=0 must be above 0"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(ConfigError) as error:
        compose(["method=sss", *words])
    assert str(error.value) == message


def test_a_network_without_pairs_is_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ConfigError) as error:
        Factors(setting(masked.wrap(net, torch.device("cpu")), model=net), 0.1, 0.1, 0.9, 5)
    assert str(error.value) == (
        "method=sss makes no sense with this network, which has no channels that can be removed"
    )
