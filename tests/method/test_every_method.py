"""What every method of ``conf/method`` keeps to, found from the folder: a new one is tested without a new test."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_class
from waist import watched

from dstrun.allocation.budget import budget
from dstrun.backend.sparse.layer import Sparse
from dstrun.cli.help import options
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.config.identity import code
from dstrun.method.procedure import Setting
from dstrun.report.load import Run
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.shipping import of_file, of_run, write
from dstrun.system.trouble import ConfigError
from dstrun.train import checkpoint
from dstrun.train.checkpoint import checksum
from dstrun.train.training import Training

pytestmark = pytest.mark.usefixtures("outlined_once")

COMMON = ["dataset=digits", "model=resnet20", "model.width=0.25", "epochs=2", "batch_size=256", "threads=1"]
COMMON += ["optimizer.lr=0.05"]
FEWER = {"lth": ["method.prune_share=0.5"], "synflow": ["method.rounds=10"]}
"""A hundred rounds of one and eight trainings of the other show no more."""
METHODS = options("method")


@pytest.fixture(scope="module", autouse=True)
def calls() -> Iterator[Counter[str]]:
    """Check what layers and criteria return in this file; yields how often each was asked."""
    with watched() as seen:
        yield seen


@cache
def takes_a_sparsity(name: str) -> bool:
    """Return whether a method has one of its own accord."""
    return compose([*COMMON, f"method={name}"]).config["sparsity"] > 0


def experiment(name: str, *words: str) -> Experiment:
    """Compose a short run of a method, at 80 % where it takes a sparsity."""
    given = [*(["sparsity=0.8"] if takes_a_sparsity(name) else []), *FEWER.get(name, [])]
    return compose([*COMMON, f"method={name}", *given, *words])


@pytest.mark.parametrize("name", METHODS)
def test_both_scopes_are_taken_only_where_they_make_a_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the allocation hangs on the scope, or the procedure asks for it."""
    asked = []

    class Asked(Setting):
        def __getattribute__(self, key: str) -> object:
            asked.append(key)
            return super().__getattribute__(key)

    monkeypatch.setattr("dstrun.run.assemble.Setting", Asked)
    made = compose(["dataset=digits", "model=mlp", "epochs=3", f"method={name}"])
    method = made.build("method")
    start(made)
    if set(method.scopes) == {"layer", "global"}:
        assert "scope" in asked or method.allocates("layer") != method.allocates("global")
    else:
        assert "scope" not in asked


def start(made: Experiment) -> Training:
    """Assemble a run, ready for its first step."""
    threads = torch.get_num_threads()
    training = assemble(made, torch.device("cpu"))
    torch.set_num_threads(threads)
    training.model.train()
    return training


def finished(made: Experiment) -> Training:
    """Train a run to its end."""
    training = start(made)
    training.prepare()
    while training.step < training.total_steps:
        training.take_step()
    return training


@pytest.fixture(scope="module")
def whole():
    """Finished runs by method, each trained once."""
    made: dict[str, Training] = {}

    def run(name: str) -> Training:
        if name not in made:
            made[name] = finished(experiment(name))
        return made[name]

    return run


def tensors(state: object, path: str = "") -> dict[str, torch.Tensor | object]:
    """Flatten a state to its leaves."""
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in tensors(part, f"{path}.{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, part in enumerate(state) for k, v in tensors(part, f"{path}.{i}").items()}
    return {path: state}


@pytest.mark.parametrize("name", METHODS)
def test_stopped_anywhere_and_continued_it_ends_the_same_bit_for_bit(name: str, whole) -> None:
    made = experiment(name)
    training = start(made)
    training.prepare()
    for stop in (1, training.total_steps // 2, training.total_steps - 1):
        while training.step < stop:
            training.take_step()
        saved = io.BytesIO()
        torch.save(training.state(), saved)
        saved.seek(0)
        training = start(made)
        training.load_state(torch.load(saved, weights_only=True))
    while training.step < training.total_steps:
        training.take_step()
    ended, uninterrupted = tensors(training.state()), tensors(whole(name).state())
    assert ended.keys() == uninterrupted.keys()
    for key, value in uninterrupted.items():
        if key.startswith((".clock", ".memory")):
            continue
        if isinstance(value, torch.Tensor):
            other = ended[key]
            assert isinstance(other, torch.Tensor), key
            assert other.dtype == value.dtype, key
            assert torch.equal(other, value), key
        else:
            assert ended[key] == value, key


@pytest.mark.parametrize("name", METHODS)
def test_it_ends_with_the_budget_and_counts_what_it_did(name: str, whole) -> None:
    made, training = experiment(name), whole(name)
    method, active = made.build("method"), training.active()
    assert len(active) == len(training.sizes)
    assert all(0 <= a <= n for a, n in zip(active, training.sizes, strict=True))
    if method.budget and (training.layers or not method.exact):
        expected = sum(Blueprint(made).counts)
        assert sum(active) == expected if method.exact else 0.8 * expected < sum(active) <= expected
    record = training.flops.record(active, training.nominal_steps * made.config["batch_size"])
    assert 0 < record["inference"] <= training.flops.cost.forward()
    assert record["train"] > 0
    assert torch.isfinite(training.loss_sum)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_pruned_leaves_neither_weight_nor_momentum(name: str, whole) -> None:
    training = whole(name)
    for layer in training.layers:
        assert layer.topology.count == layer.count
        if layer.backend == "masked":
            outside = torch.ones(layer.weight.numel(), dtype=torch.bool)
            outside[layer.topology.positions] = False
            assert not layer.weight.detach().flatten()[outside].any()
            momentum = training.optimizer.state[layer.weight].get("momentum_buffer")
            assert momentum is None or not momentum.flatten()[outside].any()


@pytest.mark.parametrize("name", METHODS)
def test_its_network_leaves_as_a_file_and_comes_back_on_either_backend(name: str, whole, tmp_path: Path) -> None:
    left_as_a_file(experiment(name), whole(name), tmp_path)


def left_as_a_file(made: Experiment, training: Training, folder: Path, tied: bool = False) -> None:
    """Check that what a finished run computes is what its files compute."""
    checkpoint.save(folder / "checkpoint.pt", training)
    record = {"schema": 2, "id": "run", "state": "done", "label": "run", "seed": 0, "accuracy": {"top1": 0.0}}
    record |= {"config": made.config, "choices": made.choices, "weights": {"checksum": checksum(training.state())}}
    record["code"] = {"own": code(made.config)}
    net = of_run(Run(folder, "run", "done", record, {}))
    x = torch.randn(5, *made.build("dataset").image)
    with torch.no_grad():
        expected = training.model.eval()(x)
        write(net, folder / "net.pt", "dense")
        plain = net.blueprint.option.build(made.build("dataset").image, 10).eval()
        plain.load_state_dict(torch.load(folder / "net.pt", weights_only=True)["state_dict"])
        torch.testing.assert_close(plain(x), expected, rtol=1e-5, atol=1e-5)
        write(net, folder / "net.safetensors", "csr")
        found = of_file(folder / "net.safetensors").build("sparse")
        torch.testing.assert_close(found(x), expected, rtol=1e-5, atol=1e-5)
        counts = {name: layer.count for name, layer in found.named_modules() if isinstance(layer, Sparse)}
        active = dict(zip((layer.name for layer in training.flops.built.layers), training.active(), strict=True))
        assert counts == {name: count for name, count in active.items() if name != "once" or not tied}
    training.model.train()


def needs_dense_storage(name: str) -> bool:
    """Return whether a method does, by its class and without composing: this is asked whenever tests are collected."""
    given = yaml.safe_load((Path(__file__).parents[2] / "conf" / "method" / f"{name}.yaml").read_text())
    target = given.get("method", {}).get("_target_")  # those without one train sparse to sparse, as dst does
    return bool(target and get_class(target).dense)


BOTH = [name for name in METHODS if name != "dense" and not needs_dense_storage(name)]


@pytest.mark.parametrize("name", BOTH)
def test_both_backends_have_the_same_topology_from_the_same_seed(name: str, tmp_path: Path) -> None:
    """On a perceptron: batch normalization amplifies rounding (``tests/backend`` has other networks)."""
    masked, sparse = (finished(experiment(name, "model=mlp", f"backend={backend}")) for backend in ("masked", "sparse"))
    assert masked.updates == sparse.updates
    for one, other in zip(masked.layers, sparse.layers, strict=True):
        assert torch.equal(one.topology.positions, other.topology.positions), one.name
        torch.testing.assert_close(one.values(), other.values(), rtol=1e-3, atol=1e-4)
    assert masked.flops.train == sparse.flops.train
    left_as_a_file(experiment(name, "model=mlp", "backend=sparse"), sparse, tmp_path)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(BOTH) - {"dense"}))
def test_what_needs_dense_storage_is_refused_on_sparse(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        experiment(name, "backend=sparse")
    assert str(error.value).startswith(f"backend=sparse makes no sense with method={name}, ")


def odd_experiment(name: str, tied: bool, *words: str) -> Experiment:
    """Compose a short run of a method on ``odd_network``."""
    made = experiment(name, *words)
    made.config["model"] = {"_target_": "odd_network.Odd", "width": 1.0, "tied": tied}
    return made


def odd(name: str, tied: bool, *words: str) -> Training:
    """Train a method on ``odd_network``."""
    return finished(odd_experiment(name, tied, *words))


@pytest.mark.parametrize(
    ("name", "tied", "words"),
    [
        ("rigl", True, ["weights=bf16"]),
        ("str", True, ["weights=bf16"]),
        ("topkast", False, ["powerprop=2"]),
        ("gse", False, ["weights=bf16", "backend=sparse"]),
    ],
)
def test_odd_networks_and_weights_in_16_bits_leave_as_files(
    name: str, tied: bool, words: list[str], tmp_path: Path
) -> None:
    made = odd_experiment(name, tied, *words)
    left_as_a_file(made, finished(made), tmp_path, tied)


@pytest.mark.parametrize("name", METHODS)
def test_grouped_and_pointwise_convolutions_without_bias_and_tied_weights(name: str) -> None:
    if name in ("thinet", "sss"):  # every channel there is read in groups, by several, or with tied weights
        with pytest.raises(ConfigError, match=r"whole channels reach 0\.0000 at most|no channels that can be"):
            odd(name, tied=True)
        return
    training = odd(name, tied=True)
    assert torch.isfinite(training.loss_sum)
    assert torch.equal(training.model.again.weight, training.model.once.weight)
    assert [layer.name for layer in training.layers] in ([], ["stem", "grouped", "point", "once", "head"])
    made = experiment(name)
    if made.build("method").budget and training.layers:
        assert sum(training.active()) == budget(sum(training.sizes), made.config["sparsity"])


@pytest.mark.parametrize("name", BOTH)
def test_odd_layers_on_both_backends(name: str) -> None:
    masked, sparse = odd(name, False), odd(name, False, "backend=sparse")
    shared = total = 0
    for one, other in zip(masked.layers, sparse.layers, strict=True):
        assert one.count == other.count
        shared += len(set(one.topology.positions.tolist()) & set(other.topology.positions.tolist()))
        total += one.count
    assert shared >= 0.9 * total  # batch normalization amplifies rounding, which may turn near ties


def test_tied_weights_are_refused_where_each_layer_keeps_its_own() -> None:
    with pytest.raises(TypeError, match="once shares its weight with another layer: tied weights need backend=masked"):
        odd("static", True, "backend=sparse")


def test_every_contract_was_checked(calls: Counter[str]) -> None:
    """What ``waist`` checks was asked on both backends, by the runs above or by these two."""
    for words in ([], ["backend=sparse"]):
        finished(experiment("gse", "subset=grabo", "epochs=1", "schedule.interval_steps=2", "schedule.end=1", *words))
    assert {name.removeprefix("dstrun.") for name in calls} >= {
        *(f"backend.{name}.layer.{what}" for name in ("masked", "sparse") for what in ("rewire", "proposal", "values")),
        *("grow.gse.candidates", "grow.gse.score", "prune.magnitude.score", "subset.grabo.factors"),
    }
