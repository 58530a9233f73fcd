"""The contract of every option of every group: found from ``conf/``, so a new option is tested without a new test."""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from method_setting import setting

from dstrun.backend.masked import layer as masked
from dstrun.cli.described import group as listed
from dstrun.cli.described import option
from dstrun.cli.help import options, text
from dstrun.cli.methods import paper
from dstrun.config import composition
from dstrun.config.experiment import Experiment
from dstrun.layer.criterion import Cost
from dstrun.layer.geometry import geometry
from dstrun.layer.growth import GrowthContext, GrowthRequest, propose
from dstrun.layer.topology import contains
from dstrun.method.procedure import Procedure
from dstrun.system.stream import generator

CONF = Path(__file__).parents[2] / "conf"
NO_GROUPS = ("recipe", "protocol")
OPTIONS = [(p.parent.name, p.stem) for p in sorted(CONF.glob("*/*.yaml")) if p.parent.name not in NO_GROUPS]
NEEDS = {"subset": ["grow=gse"], "model": ["dataset=cifar10"], "prune": ["grow=random"]}


def named(group: str) -> list[str]:
    return [name for g, name in OPTIONS if g == group]


@lru_cache
def class_folders() -> str:
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    for number in range(200):  # more than a batch
        path = root / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copytree(root / "train", root / "test")
    return f"dataset.root={root}"


def compose(group: str, name: str) -> Experiment:
    needs = [class_folders()] if name == "image_folder" else NEEDS.get(group, [])
    return composition.compose([*needs, f"{group}={name}"])


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_option_composes_and_its_keys_are_the_fields_of_its_class(group: str, name: str) -> None:
    experiment = compose(group, name)
    node = experiment.config[group]
    module, _, leaf = node["_target_"].rpartition(".")
    cls = getattr(importlib.import_module(module), leaf)
    assert set(node) - {"_target_"} == {field.name for field in dataclasses.fields(cls)}
    assert experiment.choices[group] == name
    built = experiment.build(group)
    assert isinstance(built, cls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(built, next(iter(set(node) - {"_target_"}), "anything"), 1)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_option_is_in_the_help_and_documented(group: str, name: str) -> None:
    assert name in options(group)
    assert {name, f"[{name}]"} & {*text().split()}
    assert [line for line in listed(group, []).splitlines() if line.split()[:1] == [name] and len(line.split()) > 1]
    assert option(group, name, []).startswith(f"{group}={name}\n\n")
    node = compose(group, name).config[group]
    module, _, leaf = node["_target_"].rpartition(".")
    assert getattr(importlib.import_module(module), leaf).__doc__


def small_network(groups: int = 2) -> list:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, padding=1, groups=groups), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 5)
    )
    layers = masked.sparsify(net, [30, 100], seed=1)
    layers_and_net = [net, layers]
    return layers_and_net


@pytest.mark.parametrize("name", named("grow"))
def test_grow_criterion_proposes_unblocked_distinct_candidates(name: str) -> None:
    criterion = composition.compose([f"grow={name}"]).build("grow")
    net, layers = small_network()
    limit = 12
    blocked = [layer.topology.positions for layer in layers]
    if criterion.cost is Cost.NONE:
        found = [
            propose(x, GrowthRequest(criterion, limit, generator(0, i), b))
            for i, (x, b) in enumerate(zip(layers, blocked, strict=True))
        ]
    else:
        for index, (layer, block) in enumerate(zip(layers, blocked, strict=True)):
            layer.request_growth(GrowthRequest(criterion, limit, generator(0, index), block))
        net(torch.randn(8, 4, 4, 4)).square().mean().backward()
        found = [layer.proposal() for layer in layers]
    for layer, block, proposal in zip(layers, blocked, found, strict=True):
        assert 0 < proposal.positions.numel() <= limit
        assert proposal.positions.unique().numel() == proposal.positions.numel()
        assert not contains(block, proposal.positions).any()
        assert proposal.positions.min() >= 0
        assert proposal.positions.max() < layer.topology.size
        assert (proposal.scores.diff() <= 0).all()
        assert proposal.drawn >= proposal.positions.numel()
        layer.rewire(layer.topology.positions[: proposal.positions.numel()], proposal.positions)


@pytest.mark.parametrize("name", named("subset"))
def test_subset_distribution_weighs_inputs_and_outputs(name: str) -> None:
    subset = composition.compose(["grow=gse", f"subset={name}"]).build("subset")
    for module, x in (
        (torch.nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5)),
        (torch.nn.Linear(7, 3), torch.randn(2, 5, 7)),
    ):
        delta = torch.randn_like(module(x))
        blocked = torch.tensor([0, 3])
        f, g = subset.factors(GrowthContext(geometry(module), 2, blocked, 9, generator(0, "f"), x, delta))
        out, per_out = module.weight.shape[0], module.weight[0].numel()
        assert f.shape == (geometry(module).groups, per_out)
        assert g.shape == (out,)
        assert min(f.min(), g.min()) >= 0
        assert min(f.sum(), g.sum()) > 0
        assert isinstance(subset.aggregates, bool)


@pytest.mark.parametrize("name", named("prune"))
def test_prune_criterion_scores_every_active_connection(name: str) -> None:
    net, layers = small_network()
    net(torch.randn(8, 4, 4, 4)).square().mean().backward()
    for layer in layers:
        scores = composition.compose(["grow=random", f"prune={name}"]).build("prune").score(layer, generator(0, "p"))
        assert scores.shape == (layer.topology.count,)
        assert scores.isfinite().all()


@pytest.mark.parametrize("name", named("allocation"))
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.98])
def test_allocation_is_exact(name: str, sparsity: float) -> None:
    shapes = [(16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 1, 1), (10, 64)]
    sizes = [torch.Size(s).numel() for s in shapes]
    allocation = composition.compose([f"allocation={name}"]).build("allocation")
    counts = allocation.counts(shapes, sparsity)
    assert all(1 <= c <= n for c, n in zip(counts, sizes, strict=True))
    if getattr(allocation, "dense_first", False):
        assert counts[0] == sizes[0]
        assert sum(counts[1:]) == round((1 - sparsity) * sum(sizes[1:]))
    else:
        assert sum(counts) == round((1 - sparsity) * sum(sizes))


@pytest.mark.parametrize("name", named("schedule"))
@pytest.mark.parametrize("total", [11, 22, 390, 5000])
def test_schedule_updates_within_training(name: str, total: int) -> None:
    schedule = composition.compose([f"schedule={name}"]).build("schedule")
    steps = schedule.steps(total)
    assert steps == sorted(set(steps))
    assert steps
    assert 1 <= steps[0] <= steps[-1] <= schedule.end * total
    assert all(0 <= schedule.fraction_at(step, total) <= schedule.fraction for step in steps)
    assert schedule.fraction_at(steps[0], total) > 0


@pytest.mark.parametrize("name", named("optimizer"))
def test_optimizer_lowers_a_loss_at_a_positive_rate(name: str) -> None:
    option = composition.compose([f"optimizer={name}"]).build("optimizer")
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = option.build([weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.item() < 1
    assert all(0 < option.lr_at(step, 100) <= option.lr for step in range(100))


@pytest.mark.parametrize("name", named("model"))
def test_model_builds_on_meta_and_gives_a_score_a_class(name: str) -> None:
    experiment = composition.compose([f"model={name}", "model.width=0.5"])
    with torch.device("meta"):
        net = experiment.build("model").build((3, 32, 32), 10)
        assert net(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", named("dataset"))
def test_dataset_says_its_shapes(name: str) -> None:
    option = compose("dataset", name).build("dataset")
    assert len(option.image) == 3
    if getattr(option, "mean", None) is not None:  # else they are those of the images
        assert len(option.mean) == len(option.std) == option.image[0]
    assert option.train_images == option.train_count > option.classes > 1
    assert isinstance(option.flip, bool)


@pytest.mark.parametrize("name", named("method"))
def test_method_names_its_paper(name: str) -> None:
    """``# Paper: name, authors year; what else``, or ``none`` and what it is instead."""
    assert re.fullmatch(r"(none: [^;]+|.+, [^,;]+ (19|20)\d\d)(; .+)?", paper(name)), f"conf/method/{name}.yaml"


@pytest.mark.parametrize("name", named("method"))
def test_method_starts_a_procedure(name: str) -> None:
    experiment = composition.compose([f"method={name}"])
    method, (net, layers) = experiment.build("method"), small_network(groups=1)
    assert set(method.parts) <= {"prune", "grow", "schedule"}
    parts = {group: experiment.build(group) for group in ("prune", "grow", "schedule")}
    if method.start == "all":
        layers = masked.wrap(net, torch.device("cpu"))
    method.reparametrize(net, layers)
    procedure = method.procedure(setting(layers, **parts, counts=[30, 100], model=net, classes=5))
    assert isinstance(procedure, Procedure)
    assert any(procedure.updates_at(s) for s in range(1, 101)) or "schedule" not in method.parts
    assert procedure.state() == {} or procedure.load_state(procedure.state()) is None
    assert procedure.products() is None or all(len(p) == 2 for p in vars(procedure.products()).values())
    assert (type(procedure).prepare is not Procedure.prepare) == procedure.prepares
    stretches = list(method.planned_phases([144, 480], [30, 100], parts["schedule"], 100))
    assert sum(steps for steps, _ in stretches) == 100
