"""Taylor and Fisher scores, by hand on eight weights and against per-sample gradients of torch.func."""

from __future__ import annotations

import pytest
import torch
from method_setting import setting
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.after import calibrated
from dstrun.method.after.calibrated import mean_gradients, mean_squared_gradients
from dstrun.method.after.fisher import Fisher
from dstrun.method.after.taylor import Taylor
from dstrun.system.trouble import ConfigError

X = torch.tensor([[1.0, 2.0, 0.0, 1.0], [1.0, -2.0, 2.0, 1.0]])
DELTA = torch.tensor([[1.0, 0.5], [1.0, -0.5]])
WEIGHT = torch.tensor([[1.5, 2.0, 3.0, 0.5], [4.0, 1.2, 2.0, 8.0]])
"""Two images and the gradients of the outputs: gradients [[1 2 0 1] [.5 1 0 .5]] and [[1 -2 2 1] [-.5 1 -1 -.5]].

Their mean is [[1 0 1 1] [0 1 -.5 0]], the mean of their squares [[1 4 2 1] [.25 1 .5 .25]].
"""


def eight_weights(budget: int = 3):
    """A linear layer and a loss whose output gradient for label n is DELTA[n]."""
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    net[0].weight.data = WEIGHT.clone()
    layers = masked.wrap(net, torch.device("cpu"))
    return setting(
        layers,
        budget=budget,
        model=net,
        nominal_steps=10,
        samples=lambda step, per_class: (X, torch.arange(2)),
        loss=lambda logits, y: (logits * DELTA[y]).sum(1).mean(),
    )


def test_taylor_of_eight_weights() -> None:
    """(g w)^2 with the mean gradient: the opposite gradients of position 1 cancel."""
    given = eight_weights()
    (scores,), samples = Taylor().score()(given, 11)
    assert scores.tolist() == pytest.approx([2.25, 0, 9, 0.25, 0, 1.44, 1, 0])
    assert samples == 2
    update = Taylor(retrain_share=0.1).procedure(given).before_step(11)
    assert update is not None
    assert update.samples == 2
    assert given.layers[0].topology.positions.tolist() == [0, 2, 5]


def test_fisher_of_eight_weights() -> None:
    """1/2 F w^2 with F the mean of the squared gradients of single images: nothing cancels."""
    given = eight_weights()
    (scores,), samples = Fisher().score()(given, 11)
    assert scores.tolist() == pytest.approx([1.125, 8, 9, 0.125, 2, 0.72, 1, 8])
    assert samples == 2
    Fisher(retrain_share=0.1).procedure(given).before_step(11)
    assert given.layers[0].topology.positions.tolist() == [1, 2, 7]


def small_network() -> nn.Sequential:
    """Batch normalization with running statistics of its own, dropout, a convolution."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    for _ in range(3):
        net(torch.randn(16, 2, 4, 4) * 2 + 1)
    return net


@pytest.fixture
def trained():
    """The network's setting, ten images and their labels."""
    net = small_network()
    layers = masked.wrap(net, torch.device("cpu"))
    layers[0].rewire(layers[0].topology.positions[:7], torch.empty(0, dtype=torch.int64))
    x, y = torch.randn(10, 2, 4, 4), torch.randint(3, (10,))
    return setting(layers, model=net), x, y


def per_sample(given, x, y) -> list[torch.Tensor]:
    """Per-sample gradients of the network in evaluation, (B, A) of each layer."""
    net = given.model.eval()
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters, image, label):
        logits = functional_call(net, (parameters, dict(net.named_buffers())), (image[None],))
        return functional.cross_entropy(logits, label[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    net.train()
    return [found[f"{x.name}.weight"].flatten(1)[:, x.topology.positions] for x in given.layers]


def test_gradients_equal_those_of_torch_func(trained) -> None:
    given, x, y = trained
    expected = per_sample(given, x, y)
    for found, gradients in zip(mean_squared_gradients(given, x, y), expected, strict=True):
        torch.testing.assert_close(found.float(), gradients.square().mean(0), rtol=1e-4, atol=1e-9)
        assert not torch.allclose(found.float(), gradients.mean(0).square(), rtol=0.5)  # the square of the mean
    for found, gradients in zip(mean_gradients(given, x, y), expected, strict=True):
        torch.testing.assert_close(found.float(), gradients.mean(0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("measure", [mean_gradients, mean_squared_gradients])
def test_looking_leaves_the_network_as_it_was(trained, measure) -> None:
    given, x, y = trained
    before = {key: value.clone() for key, value in given.model.state_dict().items()}
    measure(given, x, y)
    assert all(torch.equal(before[key], value) for key, value in given.model.state_dict().items())
    assert all(module.training for module in given.model.modules())
    assert all(p.grad is None for p in given.model.parameters())


def test_images_in_chunks_give_the_same_mean(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    given, x, y = trained
    whole = mean_gradients(given, x, y)
    monkeypatch.setattr(calibrated, "CHUNK", 4)
    for one, other in zip(whole, mean_gradients(given, x, y), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_refusals(name: str) -> None:
    why = f"method={name}, which scores by gradients and prunes between trainings"
    for words, message in (
        (["prune=magnitude"], f"prune=magnitude makes no sense with {why}"),
        (["method.samples_per_class=0"], "method.samples_per_class=0 must be at least 1"),
    ):
        with pytest.raises(ConfigError) as error:
            compose([f"method={name}", *words])
        assert str(error.value) == message
