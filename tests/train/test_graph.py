"""An ordinary step that is recorded and replayed is the step that would have been taken."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.train import graph, training
from dstrun.train.device import make_deterministic

pytestmark = pytest.mark.usefixtures("outlined_once")

WORDS = ["dataset=digits", "model=resnet20", "model.width=0.25", "epochs=1", "batch_size=32", "threads=1"]
UPDATING = ("schedule.interval_steps=5", "schedule.begin=0")
PLAIN = {name: UPDATING for name in ("gse", "rigl", "set", "mest", "gmp")} | {"static": (), "dense": (), "snip": ()}
"""Methods whose ordinary steps are all alike."""
OTHERS = ("snfs", "deepr", "str", "topkast", "sss", "topk_ga")


def trained(method: str, device: str, *words: str, graphs: bool) -> tuple[list[Tensor], int]:
    """Train a few steps; return the state and how many steps were replayed."""
    experiment = compose([*WORDS, f"method={method}", *words])
    make_deterministic(torch.device(device), 1)
    run = assemble(experiment, torch.device(device))
    run.graphs = graphs
    run.model.train()
    run.prepare()
    replayed = 0
    for _ in range(16):
        run.take_step()
        replayed += run._replay is not None
    momentum = [state["momentum_buffer"] for state in run.optimizer.state.values() if "momentum_buffer" in state]
    return [*run.model.state_dict().values(), *momentum, run.loss_sum], replayed


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What replays a step on the tensors that it was recorded with, as a graph does."""

    def capture(step: graph.Step, x: Tensor, y: Tensor, counters: list[Tensor]) -> graph.Step:
        images, labels = x.clone(), y.clone()

        def replay(x: Tensor, y: Tensor) -> None:
            images.copy_(x)
            labels.copy_(y)
            step(images, labels)

        return replay

    monkeypatch.setattr(training, "capture", capture)


@pytest.mark.parametrize("method", PLAIN)
def test_replayed_steps_equal(method: str, standing_in: None) -> None:
    expected, none = trained(method, "cpu", *PLAIN[method], graphs=False)
    found, replayed = trained(method, "cpu", *PLAIN[method], graphs=True)
    assert none == 0
    assert replayed > 5
    assert same(expected, found)


@pytest.mark.parametrize("method", ["gse", "dense"])
def test_replayed_steps_equal_in_16_bits(method: str, standing_in: None) -> None:
    """Weights are cast together then, and each by itself where steps are not replayed."""
    words = ("precision=bf16", *PLAIN[method])
    assert same(trained(method, "cpu", *words, graphs=False)[0], trained(method, "cpu", *words, graphs=True)[0])


@pytest.mark.parametrize("method", OTHERS)
def test_steps_with_more_in_them_are_not_replayed(method: str, standing_in: None) -> None:
    assert trained(method, "cpu", graphs=True)[1] == 0


def test_batches_are_counted_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[str] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: recorded.append("replayed")))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    average = nn.BatchNorm1d(3, momentum=None)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False), average)
    counters = graph.counters_on_host(model)
    assert [c.data_ptr() for c in counters] == [model[0].num_batches_tracked.data_ptr()]
    x, y = torch.randn(4, 3), torch.zeros(4)
    model(x)
    replay = graph.capture(lambda x, y: model(x), x, y, counters)
    assert counters[0] == 1
    replay(x, y), replay(x, y)
    assert counters[0] == 3
    assert recorded == ["replayed"] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("method", PLAIN)
def test_graph_equals_eager(method: str) -> None:
    expected, _ = trained(method, "cuda", *PLAIN[method], graphs=False)
    found, replayed = trained(method, "cuda", *PLAIN[method], graphs=True)
    assert replayed > 5
    assert same(expected, found)
