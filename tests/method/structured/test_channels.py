import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.method.structured.channels import Channels, Pair, pairs, remaining, uniform
from dstrun.model.mlp import MLP
from dstrun.model.resnet import ResNet
from dstrun.model.resnet_imagenet import ResNet50
from dstrun.model.vgg import VGG16
from dstrun.model.vit import ViT
from dstrun.system.trouble import ConfigError


def meta(option, image=(3, 32, 32), classes=10):
    with torch.device("meta"):
        return option.build(image, classes)


def sequential():
    """Convolution with norm and pooling, flattened to a linear layer, then another."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(54, 5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip


def test_pairs_of_a_sequential_network():
    found, whole = pairs(sequential())
    assert found == [Pair("0", ("1",), "4", 4), Pair("4", (), "8", 6), Pair("8", (), "10", 5)]
    assert whole == {"10": "its channels are the network's output"}


def test_pairs_of_the_networks_here():
    chain = [f"features.{i}" for i in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)]
    chain += ["classifier.0", "classifier.3", "classifier.6"]
    found, whole = pairs(meta(VGG16(base=16)))
    assert [(p.producer, p.consumer) for p in found] == list(pairwise(chain))
    assert list(whole) == ["classifier.6"]
    found, whole = pairs(meta(ResNet(depth=20)))
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert found == [Pair(f"{b}.conv1", (f"{b}.bn1",), f"{b}.conv2", 16 << int(b[5]) - 1) for b in blocks]
    assert whole["conv1"] == "several layers read its channels"
    assert whole["layer2.0.conv2"] == "add reads its channels"
    found, whole = pairs(meta(ResNet50(), (3, 64, 64)))
    blocks = [f"layer{i}.{b}" for i, n in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True) for b in range(n)]
    expected = [(f"{b}.conv{k}", f"{b}.conv{k + 1}") for b in blocks for k in (1, 2)]
    assert [(p.producer, p.consumer) for p in found] == expected
    assert whole["layer3.0.downsample.0"] == "add reads its channels"
    found, _ = pairs(meta(MLP()))
    assert found == [Pair("fc1", (), "fc2", 300), Pair("fc2", (), "fc3", 100)]
    found, whole = pairs(meta(ViT()))
    assert [(p.producer, p.consumer) for p in found] == [(f"blocks.{i}.mlp.1", f"blocks.{i}.mlp.3") for i in range(4)]
    assert whole["embed.1"] == "LayerNorm reads its channels"


TOGETHER = "1 reads its channels together or in groups"


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.a(x)) if x.sum() > 0 else x


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.c.weight = self.b.weight

    def forward(self, x):
        return self.c(self.b(self.a(self.a(x))))


@pytest.mark.parametrize(
    ("network", "reasons"),
    [
        (Branching(), ["the network's forward pass cannot be traced"] * 2),
        (Twice(), ["it is not called exactly once with its own weight"] * 2),
        (nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1)), ["its channels come in groups", None]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), [TOGETHER, None]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Linear(8, 4)), [TOGETHER, None]),
        (nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Linear(4, 4)), ["GLU reads its channels", None]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Softmax(1), nn.Conv2d(4, 4, 1)), ["Softmax reads its channels", None]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Flatten(2), nn.Linear(4, 4)), ["Flatten reads its channels", None]),
    ],
)  # fmt: skip
def test_what_is_left_alone(network, reasons):
    found, whole = pairs(network)
    assert not found
    for reason, said in zip(reasons, whole.values(), strict=False):
        assert said == reason or reason is None


def test_channels_kept_by_hand():
    """3-4-2 of linear layers: 20 weights, 5 a hidden channel; half of them are 10, and 9 leave one channel."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found, _ = pairs(net)
    for budget, kept in ((20, 4), (19, 3), (10, 2), (9, 1), (5, 1)):
        assert uniform(net, found, budget, "thinet") == {"0": kept}
        assert remaining(net, found, {"0": kept}) == [3 * kept, 2 * kept]
    with pytest.raises(ConfigError) as error:
        uniform(net, found, 4, "thinet")
    assert str(error.value) == (
        "sparsity=0.8 makes no sense with method=thinet on this network: whole channels reach 0.7500 at most"
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("option", [VGG16(base=16), ResNet(depth=20), MLP()], ids=["vgg", "resnet", "mlp"])
def test_the_largest_share_within_the_budget(option, sparsity):
    net = meta(option)
    found, _ = pairs(net)
    budget = round((1 - sparsity) * sum(p.numel() for p in net.parameters() if p.ndim > 1))
    kept = uniform(net, found, budget, "thinet")
    assert sum(remaining(net, found, kept)) <= budget
    shares = [kept[p.producer] / p.channels for p in found]
    more = {p.producer: max(1, int((max(shares) + 0.02) * p.channels)) for p in found}
    assert max(shares) == 1 or sum(remaining(net, found, more)) > 0.97 * budget


def cut(net, found, gone):
    """Build the network without the channels of each pair, in place of one that has them zeroed."""
    small, modules = copy.deepcopy(net), dict(net.named_modules())
    made = dict(small.named_modules())
    for pair in found:
        stays = torch.tensor([c for c in range(pair.channels) if c not in gone[pair.producer]])
        producer, consumer = made[pair.producer], made[pair.consumer]
        producer.weight = nn.Parameter(producer.weight.detach()[stays])
        if producer.bias is not None:
            producer.bias = nn.Parameter(producer.bias.detach()[stays])
        for name in pair.norms:
            old, norm = modules[name], made[name]
            norm.weight, norm.bias = nn.Parameter(old.weight.detach()[stays]), nn.Parameter(old.bias.detach()[stays])
            norm.running_mean, norm.running_var = old.running_mean[stays].clone(), old.running_var[stays].clone()
        weight = consumer.weight.detach()
        grouped = weight.unflatten(1, (pair.channels, -1))[:, stays]
        consumer.weight = nn.Parameter(grouped.flatten(1, 2))
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[:2]
    return small


NETWORKS = {
    "sequential": (sequential, (2, 7, 7)),
    "resnet": (lambda: ResNet(depth=8, width=0.5).build((3, 16, 16), 5), (3, 16, 16)),
    "vgg": (lambda: VGG16(base=4, width=1).build((3, 32, 32), 5), (3, 32, 32)),
    "mlp": (lambda: MLP(hidden=(20, 10)).build((1, 4, 4), 5), (1, 4, 4)),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_removed_channel_is_as_if_never_built(name, training):
    """Outputs, gradients and steps with momentum and weight decay are those of the network cut to size."""
    build, image = NETWORKS[name]
    torch.manual_seed(0)
    net = build().double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layers = masked.wrap(net, torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=0.01)
    for layer in layers:
        layer.optimizer = optimizer
    x, y = torch.randn(8, *image, dtype=torch.float64), torch.arange(8) % 3

    def step(network, optimizer):
        nn.functional.cross_entropy(network(x), y).backward()
        if network is net:
            for layer in layers:
                layer.confine_gradient()
        optimizer.step()
        optimizer.zero_grad()

    step(net, optimizer)
    channels = Channels(net, layers)
    gone = {p.producer: list(range(0, p.channels, 3)) for p in channels.pairs}
    small = cut(net, channels.pairs, gone)
    for pair in channels.pairs:
        channels.remove(pair, torch.tensor(gone[pair.producer]))
    kept = {p.producer: p.channels - len(gone[p.producer]) for p in channels.pairs}
    assert [x.count for x in layers] == remaining(net, channels.pairs, kept)
    assert [x.count for x in layers] == [p.numel() for p in small.parameters() if p.ndim > 1]
    net.train(training)
    small.train(training)
    torch.testing.assert_close(net(x), small(x))
    optimizer.state.clear()
    other = torch.optim.SGD(small.parameters(), 0.01, 0.9, weight_decay=0.01)
    for _ in range(3):
        step(net, optimizer)
        step(small, other)
    torch.testing.assert_close(net(x), small(x))


def test_what_is_removed_has_neither_value_nor_momentum_ever_again():
    torch.manual_seed(0)
    net = sequential()
    layers = masked.wrap(net, torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=0.01)
    for layer in layers:
        layer.optimizer = optimizer
    for step in range(4):
        net(torch.randn(6, 2, 7, 7)).square().sum().backward()
        for layer in layers:
            layer.confine_gradient()
        optimizer.step()
        optimizer.zero_grad()
        if step == 1:
            channels = Channels(net, layers)
            channels.remove(channels.pairs[0], torch.tensor([1, 3]))
    for parameter in (net[0].weight, net[0].bias, net[1].weight, net[1].bias):
        for tensor in (parameter, optimizer.state[parameter]["momentum_buffer"]):
            assert not tensor[[1, 3]].any()
            assert tensor[[0, 2]].all()
    assert not net[4].weight[:, [1, 3]].any()
