import pytest
import torch
from torch import nn

from dstrun.account.recorded import recorded
from dstrun.cli.help import options
from dstrun.config.composition import compose
from dstrun.method.at_init.grasp import GraSP
from dstrun.system.trouble import ConfigError

# L = w' C w / 2 with C of four blocks [[1, 2], [2, 1]] on the diagonal; C C is blocks of [[5, 4], [4, 5]].
# w (C C w): pairs (u, v) give u (5 u + 4 v) and v (4 u + 5 v).
A = [2.0, -1.0, 1.0, 1.5]
B = [3.0, -1.0, 0.5, -2.0]
SCORES = [12.0, -3.0, 11.0, 17.25, 33.0, -7.0, -2.75, 16.0]
CURVATURE = torch.block_diag(*[torch.tensor([[1.0, 2.0], [2.0, 1.0]])] * 4)


def quadratic(weights, labels):
    return weights @ CURVATURE @ weights / 2


def test_eight_weights_of_a_quadratic_by_hand(beside):
    made = beside(A, B, quadratic)
    scores, passed = GraSP(temperature=1.0).score(made.setting)
    assert torch.cat(scores).tolist() == SCORES
    assert passed == 6  # two samples, three passes each
    assert all(p.grad is None for p in made.net.parameters())


@pytest.mark.parametrize(
    ("budget", "kept"), [(4, [[0, 3], [0, 3]]), (5, [[0, 2, 3], [0, 3]]), (6, [[0, 2, 3], [0, 2, 3]])]
)
def test_the_largest_are_kept_signs_and_all(beside, budget, kept):
    """Of the last six, |S| would keep 5 (7.0) for 6 (-2.75), and the opposite sign 1 and 5 but neither 3 nor 4."""
    made = beside(A, B, quadratic, budget=budget)
    GraSP().procedure(made.setting).prepare()
    assert made.kept() == kept


def test_each_layer_keeps_its_count(beside):
    made = beside(A, B, quadratic, counts=[1, 3], budget=4)
    GraSP().procedure(made.setting).prepare()
    assert made.kept() == [[3], [0, 2, 3]]


def test_logits_are_divided_by_the_temperature(beside):
    scores, _ = GraSP().score(beside(A, B, quadratic).setting)
    assert (torch.cat(scores) * 200.0**4).tolist() == pytest.approx(SCORES)


def test_scores_are_how_much_gradient_flow_a_connection_carries():
    """Shrinking w_i by a share e changes g'g by -2 e w_i (H g)_i."""

    def flow(w):
        g = CURVATURE.double() @ w
        return (g @ g).item()

    w = torch.tensor(A + B, dtype=torch.float64)
    change = []
    for index in range(8):
        less = w.clone()
        less[index] *= 1 - 1e-6
        change.append((flow(less) - flow(w)) / 1e-6)
    assert change == pytest.approx([-2 * s for s in SCORES], rel=1e-4)


def smooth(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    return net.double()


def samples(step, per_class):
    draws = torch.Generator().manual_seed(step)
    y = torch.arange(3).repeat_interleave(per_class)
    return torch.randn(len(y), 1, 4, 4, generator=draws, dtype=torch.float64), y


def numerical(net, batches, temperature, loss=nn.functional.cross_entropy):
    """Return w (H g) by central differences of the gradient along g; H g is of second order, so float64."""
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]

    def gradient():
        total = sum(loss(net(x) / temperature, y) for x, y in batches) / len(batches)
        return torch.autograd.grad(total, weights)

    start, g = [w.detach().clone() for w in weights], gradient()
    step, sides = 1e-4 / max(part.abs().max().item() for part in g), []
    for sign in (1, -1):
        with torch.no_grad():
            for w, s, part in zip(weights, start, g, strict=True):
                w.copy_(s + sign * step * part)
        sides.append(gradient())
    with torch.no_grad():
        for w, s in zip(weights, start, strict=True):
            w.copy_(s)
    return [(s * (up - down) / (2 * step)).flatten() for s, up, down in zip(start, *sides, strict=True)]


@pytest.mark.parametrize(("rounds", "splits"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_product_is_that_of_finite_differences(scored, rounds, splits):
    """g and H are those of the mean over all rounds and parts, each normalised by itself."""
    made = scored(smooth(), samples, classes=3)
    scores, passed = GraSP(samples_per_class=3, rounds=rounds, splits=splits, temperature=2.0).score(made.setting)
    assert passed == 3 * 9 * rounds == GraSP(samples_per_class=3, rounds=rounds).scored_samples(3)
    batches = [(x[i::splits], y[i::splits]) for x, y in (samples(r, 3) for r in range(rounds)) for i in range(splits)]
    for score, expected in zip(scores, numerical(made.net, batches, 2.0), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-9)
    assert {step for step, _ in made.drawn} == set(range(rounds))


SMALLER = {"resnet50": 0.125, "resnet110": 0.25, "vit": 0.25}


@pytest.mark.parametrize("name", options("model"))
def test_every_network_can_be_differentiated_twice(scored, name):
    """In-place ReLU and attention among them; and what measures memory during the pass changes no number."""
    torch.manual_seed(0)
    width = SMALLER.get(name, 0.25)
    net = compose([f"model={name}", f"model.width={width}"]).build("model").build((3, 32, 32), 3)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    made = scored(net, lambda step, per_class: (x, torch.arange(3).repeat(2)), classes=3)
    scores, _ = GraSP().score(made.setting)
    assert [s.numel() for s in scores] == [layer.count for layer in made.layers]
    assert all(torch.isfinite(s).all() and s.any() for s in scores)
    with recorded(torch.device("cpu"), net.parameters()):
        measured, _ = GraSP().score(made.setting)
    for score, other in zip(scores, measured, strict=True):
        torch.testing.assert_close(score, other)


def test_product_through_attention_is_that_of_finite_differences(scored):
    torch.manual_seed(0)
    net = compose(["model=vit", "model.width=0.17"]).build("model").build((1, 8, 8), 3).double()
    x, y = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(3).repeat(2)
    made = scored(net, lambda step, per_class: (x, y), classes=3)
    scores, _ = GraSP(temperature=2.0).score(made.setting)
    for score, expected in zip(scores, numerical(net, [(x, y)], 2.0), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-3, atol=1e-8)


def test_statistics_and_random_streams_stay_as_they_are(scored):
    net = nn.Sequential(*smooth()[:3], nn.Dropout(0.5), *smooth()[3:])
    made = scored(net, samples, classes=3)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    before = torch.get_rng_state()
    first, again = (GraSP().score(made.setting)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(buffers[name], buffer) for name, buffer in net.named_buffers())
    assert all(module.training for module in net.modules())


def test_xavier_scores_other_weights_of_linear_layers_and_trains_the_old(scored):
    made = scored(smooth(), samples, classes=3)
    before = [layer.values().clone() for layer in made.layers]
    plain, _ = GraSP().score(made.setting)
    drawn, _ = GraSP(xavier=True).score(made.setting)
    again, _ = GraSP(xavier=True).score(made.setting)
    assert not torch.equal(plain[1], drawn[1])
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert all(torch.equal(a, layer.values()) for a, layer in zip(before, made.layers, strict=True))
    weights = GraSP(xavier=True)._weights(made.setting)
    assert weights["0.weight"] is made.layers[0].weight
    big = scored(nn.Sequential(nn.Linear(300, 500)), samples)
    (weight,) = GraSP(xavier=True)._weights(big.setting).values()
    assert weight.std().item() == pytest.approx((2 / 800) ** 0.5, rel=0.02)


def test_cifar100_and_imagenet_score_as_the_authors_code_does():
    def drawn(dataset):
        method = compose(["method=grasp", f"dataset={dataset}"]).build("method")
        return method.samples_per_class, method.rounds

    assert [drawn(d) for d in ("cifar10", "cifar100", "imagenet")] == [(10, 1), (5, 2), (1, 38)]


def test_temperature_is_positive():
    with pytest.raises(ConfigError) as error:
        GraSP(temperature=0.0)
    assert str(error.value) == "method.temperature=0.0 must be above 0"
