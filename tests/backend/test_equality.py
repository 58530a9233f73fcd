"""From one seed, sparse layers train as masked ones do: the same topologies, losses, outputs and gradients."""

import pytest
import torch
from pair import METHODS, MODELS, WORDS, Pair, assemble, train

from dstrun.backend import search

pytestmark = pytest.mark.usefixtures("outlined_once")

OFTEN = ["schedule.interval_steps=2", "schedule.end=1", "schedule.fraction=0.3"]
SELDOM = ["schedule.interval_steps=10", "schedule.end=1", "schedule.fraction=0.3", "optimizer.nesterov=false"]
DEPTHWISE = {("mobilenet_v1", "rigl"), ("mobilenet_v1", "graest")}
KEPT = {("mlp", m) for m in METHODS} | {("resnet20", "graest"), ("vgg16_small", "rigl"), ("vit", "grabo")} | DEPTHWISE
"""Runs of the default set: every method, every network; the others are slow ones."""
LIKE_SET = {"sign", "mest", "bound"}
"""They grow as SET does and differ in what they prune and how many: one network is enough in the default set."""


def runs(kept):
    return pytest.mark.parametrize(
        ("model", "method"),
        [
            pytest.param(model, method, marks=[] if (model, method) in kept else pytest.mark.slow)
            for model in MODELS
            for method in METHODS
        ],
    )


def words(model, method, *others):
    return [*MODELS[model], *METHODS[method], *others]


def follow(pair: Pair, steps: int, rel: float, flipped: float = 0) -> None:
    """Take steps of both, comparing losses and topologies."""
    for step in range(1, steps + 1):
        masked, sparse_ = pair.step()
        assert sparse_ == pytest.approx(masked, rel=rel, abs=rel), step
        assert pair.differing() <= flipped, step
    assert pair.masked.updates == pair.sparse.updates


@runs(
    DEPTHWISE | {(x, y) for x in MODELS for y in METHODS if x == "mlp" or (x != "mobilenet_v1" and y not in LIKE_SET)}
)
def test_in_float64_they_stay_equal(model, method):
    """Every method and network is followed over fifty steps and five updates, other pairs over fifteen and three."""
    updates, interval = (5, 10) if (model, method) in KEPT else (3, 5)
    pair = train(words(model, method, *SELDOM, f"schedule.interval_steps={interval}"), kernel="reference", double=True)
    a, b = pair.gradients()
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-11)
    follow(pair, interval * updates, 1e-7)
    assert pair.sparse.updates == updates


@runs(KEPT)
def test_in_float32_they_start_out_equal_but_for_rounding(model, method):
    """Rounding grows with every step, and swaps near-ties in the end: the float64 test is the one that follows far."""
    pair = train(words(model, method, *SELDOM))
    a, b = pair.gradients()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    follow(pair, 10, 1e-3, 0.01)
    assert pair.sparse.updates == 1


VARIANTS = {
    "adamw": ["method=rigl", "optimizer=adamw", "optimizer.lr=0.001"],
    "adam": ["method=set", "optimizer=adam", "optimizer.lr=0.001"],
    "nesterov": ["method=set", "optimizer.nesterov=true"],
    "global": ["method=gse", "subset=grabo", "scope=global"],
    "global set": ["method=set", "scope=global"],
    "global rigl adamw": ["method=rigl", "scope=global", "optimizer=adamw", "optimizer.lr=0.001"],
    "fresh": ["method=gse", "method.batch=fresh"],
    "fresh rigl": ["method=rigl", "method.batch=fresh", "method.samples_per_class=2"],
    "random prune": ["method=rigl", "prune=random"],
    "single": ["method=gse", "grow.sampling=single", "subset=graest"],
    "static": ["method=static"],
    "dense layer": ["method=set", "allocation=erk", "sparsity=0.5"],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model", ["mlp", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_every_kind_of_run_is_equal(model, variant):
    times = [] if variant == "static" else OFTEN
    pair = train([*MODELS[model], *VARIANTS[variant], *times], kernel="reference", double=True)
    before = [layer.count for layer in pair.sparse.layers]
    follow(pair, 11, 1e-9)
    assert pair.sparse.updates == (0 if variant == "static" else 5)
    assert ([layer.count for layer in pair.sparse.layers] != before) == variant.startswith("global")


PROCEDURES = {
    "dsr": ["method=dsr", "method.periods=[10,20,40,80]"],
    "deepr": ["method=deepr"],
    "deepr global": ["method=deepr", "scope=global", "method.noise=weights", "method.signs=first"],
}


@pytest.mark.parametrize("method", PROCEDURES)
@pytest.mark.parametrize("model", ["mlp", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_procedures_of_their_own_are_equal_over_fifty_steps(model, method):
    pair = train([*MODELS[model], *PROCEDURES[method]], kernel="reference", double=True)
    before = [layer.topology.positions for layer in pair.sparse.layers]
    follow(pair, 50, 1e-7)
    assert pair.sparse.updates >= 2
    assert any(not torch.equal(p, x.topology.positions) for p, x in zip(before, pair.sparse.layers, strict=True))


@pytest.mark.parametrize("block", [1, 100, 1000])
def test_the_dense_gradient_in_blocks(block, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", block)
    follow(train(words("mlp", "rigl", *OFTEN), kernel="reference", double=True), 5, 1e-9)


def test_bfloat16_stays_near():
    pair = train([*MODELS["mlp"], "method=static", "precision=bf16"])
    for _ in range(30):
        masked, sparse_ = pair.step()
        assert sparse_ == pytest.approx(masked, rel=0.05, abs=0.02)


@pytest.mark.parametrize("backend", ["sparse", "masked"])
@pytest.mark.parametrize("method", ["method=gse", "method=rigl", "method=rigl optimizer=adamw optimizer.lr=0.001"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_continued_from_a_checkpoint_the_same_bits(method, scope, backend, tmp_path):
    told = [*MODELS["mlp"], *method.split(), *OFTEN, f"scope={scope}", f"backend={backend}"]
    whole = assemble([*WORDS, *told])
    for _ in range(5):
        whole.take_step()
    torch.save(whole.state(), tmp_path / "state.pt")
    other = assemble([*WORDS, *told, "seed=0"])
    for _ in range(2):
        other.take_step()
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(5):
        whole.take_step()
        other.take_step()
    assert same(whole.state()["model"], other.state()["model"])
    for number, kept in whole.state()["optimizer"]["state"].items():
        assert same(kept, other.state()["optimizer"]["state"][number])
        assert ("age" in kept) == (
            "adamw" in method and kept["exp_avg"].shape in [x.weight.shape for x in whole.layers]
        )
    assert [x.explored() for x in whole.layers] == [x.explored() for x in other.layers]
    assert whole.loss_sum == other.loss_sum


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)
