"""A loop with a ``Sparsifier`` trains what the runner does, bit for bit, and refuses what it cannot give a method."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from dstrun import AgedAdam, Sparsifier
from dstrun.config.composition import compose
from dstrun.optimizer.decay import groups
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.system.stream import stream
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

RUN = ("model=mlp", "dataset=digits", "epochs=2", "batch_size=64", "optimizer.lr=0.05", "threads=1")
OFTEN = ("schedule.interval_steps=5",)
CPU = torch.device("cpu")


def runner(*words: str) -> Training:
    training = assemble(compose([*RUN, *words]), CPU)
    training.model.train()
    training.prepare()
    return training


def plain(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()


def by_closure(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        return found

    optimizer.step(closure)


def loop(training: Training, words: tuple[str, ...], take=plain, stop: int | None = None, **state) -> tuple:
    """Train as a user would, on the batches and at the rates of a run; from a checkpoint where there is one."""
    experiment = compose([*RUN, *words])
    torch.manual_seed(stream(0, "model"))
    network = Blueprint(experiment).build().train()
    rate, total = experiment.build("optimizer"), training.total_steps
    optimizer = rate.build(groups(network, network.parameters(), rate.decay))
    sparsifier = Sparsifier(network, optimizer, *words, steps=total)
    for name, one in (("network", network), ("sparsifier", sparsifier), ("optimizer", optimizer)):
        if name in state:
            one.load_state_dict(state[name])
    while sparsifier.step < (stop or total):
        for group in optimizer.param_groups:
            group["lr"] = rate.lr_at(sparsifier.step, total)
        x, y = training.data.batch(sparsifier.step)
        take(network, optimizer, lambda x=x, y=y: functional.cross_entropy(network(x), y))
    return network, sparsifier, optimizer


def check_same(training: Training, network: nn.Module, sparsifier: Sparsifier) -> None:
    expected, found = training.model.state_dict(), network.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    for one, other in zip(training.layers, sparsifier.layers, strict=True):
        assert torch.equal(one.topology.positions, other.topology.positions)
        assert torch.as_tensor(one.explored()) == torch.as_tensor(other.explored())


@pytest.mark.parametrize(
    "words",
    [
        ("method=static",),
        ("method=set", *OFTEN),
        ("method=rigl", *OFTEN),
        ("method=rigl", *OFTEN, "scope=global", "seed=3"),
        ("method=rigl", *OFTEN, "backend=sparse"),
        ("method=gse", *OFTEN),
        ("method=gse", *OFTEN, "backend=sparse"),
        ("method=gse", *OFTEN, "subset=grabo", "allocation=erk"),
        ("method=gmp", *OFTEN),
        ("method=gmp", *OFTEN, "scope=global", "allocation=null", "initialization=fan_in"),
        ("method=mest", *OFTEN),
        ("method=snfs", *OFTEN),
        ("method=deepr", "backend=sparse"),
        ("method=random",),
    ],
    ids=" ".join,
)
def test_a_loop_trains_what_the_runner_does(words: tuple[str, ...]) -> None:
    words = (*words, "sparsity=0.9")
    training = runner(*words)
    while training.step < training.total_steps:
        training.take_step()
    network, sparsifier, _ = loop(training, words)
    assert (training.updates > 0) == (words[0] != "method=static")
    check_same(training, network, sparsifier)
    assert sparsifier.sparsity == pytest.approx(1 - sum(training.active()) / sum(training.sizes))


def test_a_closure_trains_the_same() -> None:
    words = ("method=gse", *OFTEN, "sparsity=0.9")
    training = runner(*words)
    network = loop(training, words)[0]
    for name, tensor in loop(training, words, by_closure)[0].state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


@pytest.mark.parametrize("backend", ["masked", "sparse"])
def test_a_checkpoint_continues_bit_for_bit(backend: str) -> None:
    words = ("method=rigl", *OFTEN, "sparsity=0.9", "scope=global", f"backend={backend}")
    training = runner(*words)
    whole = loop(training, words)
    parts = loop(training, words, stop=14)
    state = dict(zip(("network", "sparsifier", "optimizer"), (part.state_dict() for part in parts), strict=True))
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    continued = loop(training, words, **torch.load(file))
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, continued[0].state_dict()[name])
    for one, other in zip(whole[1].layers, continued[1].layers, strict=True):
        assert torch.equal(one.topology.positions, other.topology.positions)
    with pytest.raises(ConfigError, match="the checkpoint was made with scope=global, and this Sparsifier with layer"):
        loop(training, (*words, "scope=layer"), **state)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


def sparsified(*words: str, optimizer=torch.optim.SGD, steps: int = 20, **settings) -> tuple:
    torch.manual_seed(0)
    model = network()
    made = optimizer(model.parameters(), lr=0.05)
    return model, made, Sparsifier(model, made, *words, steps=steps, **({"sparsity": 0.8} | settings))


def backward(model: nn.Module, step: int = 0) -> None:
    draws = torch.Generator().manual_seed(step)
    x, y = torch.randn(16, 20, generator=draws), torch.randint(5, (16,), generator=draws)
    functional.cross_entropy(model(x), y).backward()


def test_the_norm_that_is_clipped_is_that_of_active_connections() -> None:
    norms = {}
    for backend in ("masked", "sparse"):
        model, _, _ = sparsified(method="gse", backend=backend)
        backward(model)
        norms[backend] = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    assert norms["masked"] == pytest.approx(norms["sparse"], rel=1e-5)


def test_none_is_null() -> None:
    _, _, sparsifier = sparsified(method="gmp", scope="global", allocation=None)
    assert sparsifier.sparsity == 0


def test_adam_ages_its_connections() -> None:
    model, optimizer, sparsifier = sparsified("schedule.interval_steps=4", method="rigl", optimizer=AgedAdam)
    grown = 0
    for step in range(20):
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()
        grown += 0 if sparsifier.update is None else sum(layer.grown for layer in sparsifier.update.changes)
    assert grown > 0
    assert sparsifier.step == 20
    assert sparsifier.sparsity == pytest.approx(0.8, abs=0.002)
    model, optimizer, _ = sparsified(method="rigl", optimizer=torch.optim.AdamW)
    backward(model)
    with pytest.raises(ConfigError, match="AdamW keeps 'step'"):
        optimizer.step()


@pytest.mark.parametrize(("method", "refused"), [("gse", True), ("set", False)])
def test_accumulated_gradients(method: str, refused: bool) -> None:
    model, optimizer, _ = sparsified(method=method)
    backward(model)
    if refused:
        with pytest.raises(ConfigError, match="two backward passes before a step"):
            backward(model, 1)
    else:
        backward(model, 1)
        optimizer.step()


def test_a_copy_of_the_network_is_a_network_alone() -> None:
    model, _, sparsifier = sparsified(method="gse")
    twin = copy.deepcopy(model)
    backward(twin)
    backward(twin)
    assert sparsifier.step == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "lth"}, "method=lth trains several times, which only dstrun.train supports"),
        ({"method": "snip"}, "method=snip needs additional forward passes"),
        ({"method": "str", "sparsity": 0}, "method=str computes weights from parameters of its own"),
        ({"method": "topkast"}, "method=topkast computes weights from parameters of its own"),
        ({"method": "thin"}, "method=thin has no sparse layer"),
        ({"method": "sss", "sparsity": 0}, "method=sss trains parameters of its own"),
        ({"method": "dense", "sparsity": 0}, "method=dense has no sparse layer"),
        ({"method": "gmp", "backend": "sparse"}, "backend=sparse"),
        ({"method": "gsee"}, "did you mean gse"),
        ({"method": "gse", "backend": "auto"}, "backend=auto times steps of a run"),
        ({"method": "gse", "sparsity": 2}, "sparsity=2"),
        ({"method": "gse", "steps": 0}, "steps=0 must be a whole number"),
        ({"epochs": 3}, "epochs=3 does not apply to a Sparsifier: choose method"),
        ({"sparsty": 0.3}, "did you mean sparsity"),
    ],
    ids=str,
)
def test_what_a_loop_cannot_give_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sparsified(**settings)


def test_optimizers_of_something_else_are_refused() -> None:
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ConfigError, match="the optimizer lacks the weight of 2"):
        Sparsifier(model, optimizer, method="set", steps=10)
    backward(model)
    optimizer.step()
    with pytest.raises(ConfigError, match="has taken steps already"):
        Sparsifier(model, optimizer, method="set", steps=10)
