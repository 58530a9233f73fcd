"""A network that is computed again in the backward pass trains to the same numbers, and keeps less."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.storage.recompute import Chain, Recompute, checkpoint
from dstrun.system.trouble import ConfigError

pytestmark = pytest.mark.usefixtures("outlined_once")

COMMON = ["dataset=digits", "wandb=disabled", "threads=1", "epochs=1", "batch_size=16", "optimizer.lr=0.05"]
OFTEN = ["schedule.interval_steps=2", "schedule.begin=0"]
RESNET = ["model=resnet20", "model.width=0.25"]
CASES = {
    "masked": [*RESNET, "method=gse", "subset=graest", *OFTEN],
    "sparse": [*RESNET, "method=rigl", *OFTEN, "backend=sparse"],
    "bf16": [*RESNET, "method=set", *OFTEN, "precision=bf16"],
    "powerprop": [*RESNET, "method=static", "powerprop=2"],
    "topkast": [*RESNET, "method=topkast"],
    "snip": [*RESNET, "method=snip"],
    "grasp": [*RESNET, "method=grasp"],
    "dropout": ["model=vgg16_small", "model.width=0.125", "method=static", "dataset._target_=large"],
    "vit": ["model=vit", "model.width=0.125", "model.patch=2", "method=gse", "backend=sparse", *OFTEN],
    "several passes": [*RESNET, "method=gse", "subset=grabo", "microbatch=4", *OFTEN],
}


def trained(*words: str) -> dict[str, object]:
    large = "dataset._target_=large" in words
    experiment = compose([*COMMON, *(word for word in words if "_target_" not in word)])
    if large:
        experiment.config["dataset"]["_target_"] = "pair.LargeDigits"
    run = assemble(experiment, torch.device("cpu"))
    run.model.train()
    run.prepare()
    for _ in range(4):
        run.take_step()
    momentum = [kept["momentum_buffer"] for kept in run.optimizer.state.values()]
    return {"state": run.model.state_dict(), "momentum": momentum, "loss": run.loss_sum, "updates": run.updates}


@pytest.mark.parametrize("case", CASES)
def test_numbers_stay_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: weights, momentum, running statistics, and what dropout drops."""
    from pathlib import Path

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "backend")
    plain, block, sqrt = (trained(*CASES[case], f"checkpointing={kind}") for kind in ("none", "block", "sqrt"))
    for other in (block, sqrt):
        torch.testing.assert_close(plain, other, rtol=0, atol=0)


class Preactivated(nn.Module):
    """A network with a chain in a chain, in which a block is called with what nothing needs a gradient of."""

    def __init__(self) -> None:
        super().__init__()
        stage = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)))
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), stage)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


def kept(model: nn.Module, recompute: Recompute) -> tuple[int, list[torch.Tensor]]:
    """Bytes that a pass keeps apart from parameters, and the gradients."""
    sizes: dict[int, int] = {}
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), recompute.active():
        loss = model(x).square().sum()
    loss.backward()
    return sum(sizes.values()), [p.grad for p in model.parameters()]


def test_a_segment_keeps_its_input_alone() -> None:
    found = {}
    for kind in ("none", "block", "sqrt"):
        torch.manual_seed(0)
        model, recompute = Preactivated(), Recompute()
        if kind != "none":
            names = checkpoint(model, kind, recompute)
            assert "body.2.1.0" in names
            assert "head" not in names
            assert [len(segment) for segment in model.body.segments] == ([2] * 4 if kind == "block" else [4] * 2)
        assert list(model.state_dict()) == list(Preactivated().state_dict())
        found[kind] = kept(model, recompute)
    rows = 64 * 8 * 4
    ends = 2 * rows + 64 * 2 * 4  # the input, the head's input, and the logits
    assert {kind: size - ends for kind, (size, _) in found.items()} == {
        "none": 4 * rows - rows,
        "block": 3 * rows,
        "sqrt": rows,
    }
    torch.testing.assert_close(found["none"][1], found["block"][1], rtol=0, atol=0)
    torch.testing.assert_close(found["none"][1], found["sqrt"][1], rtol=0, atol=0)


def test_passes_that_score_or_evaluate_are_plain() -> None:
    """Scoring may need a second derivative, which a segment does not have."""
    model, recompute = Preactivated(), Recompute()
    checkpoint(model, "block", recompute)
    x = torch.randn(4, 8)
    first = torch.autograd.grad(model(x).square().sum(), list(model.parameters()), create_graph=True)
    sum(g.square().sum() for g in first).backward()
    assert isinstance(model.body, Chain)
    with recompute.active(), torch.no_grad():
        assert not model(x).requires_grad


def test_what_changes_its_input_is_refused() -> None:
    class Block(nn.Sequential):
        """ReLU in place, then a linear layer: no chain of its own."""

    model, recompute = nn.Sequential(*(Block(nn.ReLU(inplace=True), nn.Linear(4, 4)) for _ in range(2))), Recompute()
    checkpoint(model, "block", recompute)
    with recompute.active(), pytest.raises(RuntimeError, match="Block changes its input in place"):
        model(torch.randn(2, 4))


def test_a_network_without_a_chain_is_refused() -> None:
    with pytest.raises(ConfigError, match="checkpointing=block makes no sense with this model"):
        checkpoint(nn.Linear(4, 4), "block", Recompute())
