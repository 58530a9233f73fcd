"""Runs that start from the network of another."""

from __future__ import annotations

import pytest
import torch
from small_run import SMALL

from dstrun.cli.main import main
from dstrun.config.composition import compose, compose_sweep
from dstrun.record.folder import RunFolder
from dstrun.run.assemble import assemble
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError

pytestmark = pytest.mark.usefixtures("outlined_once")

COMMON = [*SMALL, "model=resnet20", "model.width=0.25", "epochs=1", "threads=1"]
ERK = "allocation=erk"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a sparse, a dense and a thresholded run below ``results``, and these runs."""
    folder = tmp_path_factory.mktemp("origin")
    kinds = (["method=set", ERK], ["method=dense", "sparsity=0"], ["method=thin"])
    return folder, *(run(compose([*COMMON, *words, f"results={folder}/results"])).folder for words in kinds)


@pytest.fixture(autouse=True)
def _there(trained, monkeypatch) -> None:
    monkeypatch.chdir(trained[0])


def left(folder):
    return torch.load(folder.checkpoint, weights_only=True)


def begun(folder, *words):
    return assemble(compose([*COMMON, f"init={folder.id}", *words]), torch.device("cpu"))


def test_as_many_connections_as_the_run_has_are_its_topology(trained):
    """Whatever the allocation, and on either backend."""
    kept = left(trained[1])
    for words in (["backend=masked", ERK], ["backend=sparse", "allocation=uniform"]):
        training = begun(trained[1], "method=rigl", *words)
        for layer in training.layers:
            positions = kept["layers"][layer.name]["positions"]
            assert torch.equal(layer.topology.positions, positions)
            assert torch.equal(layer.values(), kept["model"][f"{layer.name}.weight"].flatten()[positions])
        rest = {key for key in kept["model"] if "bn" in key or key == "fc.bias"}
        assert len(rest) == 19 * 5 + 1
        assert all(torch.equal(training.model.state_dict()[key], kept["model"][key]) for key in rest)


@pytest.mark.parametrize("backend", ["masked", "sparse"])
def test_fewer_connections_are_the_largest_of_each_layer(trained, backend):
    for origin, sparsity in ((trained[1], 0.9), (trained[2], 0.95)):
        training = begun(origin, "method=static", ERK, f"sparsity={sparsity}", f"backend={backend}")
        fresh = assemble(compose([*COMMON, "method=static", ERK, f"sparsity={sparsity}"]), torch.device("cpu"))
        assert [layer.count for layer in training.layers] == [layer.count for layer in fresh.layers]
        kept = left(origin)["model"]
        for layer in training.layers:
            weight = kept[f"{layer.name}.weight"].flatten()
            assert torch.equal(layer.values(), weight[layer.topology.positions])
            dropped = weight.abs().index_fill(0, layer.topology.positions, 0)
            assert dropped.max() <= layer.values().abs().min()


def test_all_connections_are_those_of_the_run_and_zeros(trained):
    kept = left(trained[1])["model"]
    for method in ("dense", "gmp", "topkast"):
        words = ["sparsity=0"] if method == "dense" else [ERK, "sparsity=0.9"]
        training = begun(trained[1], f"method={method}", *words)
        for name, layer in ((n, m) for n, m in training.model.named_modules() if isinstance(m, torch.nn.Conv2d)):
            stored = layer.parametrizations.weight.original if method == "topkast" else layer.weight
            assert torch.equal(stored, kept[f"{name}.weight"])


def test_training_goes_on_where_the_run_was(trained):
    def first_loss(*words):
        outcome = run(compose([*COMMON, "method=static", ERK, f"results={trained[0]}/results", *words]))
        return float((outcome.folder.path / "metrics.csv").read_text().splitlines()[1].split(",")[2]), outcome

    tuned, outcome = first_loss(f"init={trained[1].id}")
    scratch, _ = first_loss()
    assert tuned < scratch
    checksum = trained[1].record()["weights"]["checksum"]
    assert outcome.record["config"]["init"] == f"{trained[1].id}@{checksum[:16]}"
    assert main(["eval", outcome.folder.id]) == 0


def test_what_it_starts_from_is_part_of_what_a_run_is(trained):
    def named(*words):
        composed = compose([*COMMON, "method=static", ERK, *words])
        return RunFolder(composed.config, composed.choices).id

    same = {named(f"init={word}") for word in (trained[1].id, trained[1].path, trained[1].id[:-8])}
    assert len(same) == 1
    assert len({*same, named(), named(f"init={trained[2].id}")}) == 3
    swept = compose_sweep([*COMMON, "method=static", ERK, f"init={trained[1].id},{trained[2].id}"])
    assert [made.config["init"].partition("@")[0] for made in swept] == [trained[1].id, trained[2].id]


@pytest.mark.parametrize(
    ("which", "words", "sentence"),
    [
        (
            1,
            ["model.width=0.5"],
            r"trained model=resnet20 model.width=0.25, and this run has model=resnet20 model.width=0.5",
        ),
        (1, ["model=mlp"], r"and this run has model=mlp .*: the network has to be the same"),
        (1, ["method=gmp", "initialization=fan_in"], "initialization=fan_in makes no sense with init"),
        (1, ["method=thin"], "makes no sense with method=thin, which trains another network"),
        (3, ["method=static"], "makes no sense with method=thin, which trains another network"),
    ],
)
def test_what_does_not_go_together_is_said_before_torch(trained, which, words, sentence):
    kept = [word for word in COMMON if not (word.startswith("model.") and "model=mlp" in words)]
    with pytest.raises(ConfigError, match=sentence):
        compose([*kept, *words, f"init={trained[which].id}"])


def test_more_connections_than_there_are_and_other_images_are_refused(trained):
    with pytest.raises(ConfigError, match=r"connections in \S+, and [\d,]+ are needed: raise sparsity"):
        begun(trained[1], "method=static", ERK, "sparsity=0.5")
    with pytest.raises(ConfigError, match=r"has a network of other shapes: for other images, or more or fewer classes"):
        begun(trained[2], "method=dense", "sparsity=0", "dataset=cifar10")


def test_a_run_without_weights_is_refused(trained):
    kept = trained[2].checkpoint.rename(trained[0] / "aside.pt")
    try:
        with pytest.raises(ConfigError, match=r"checkpoint.pt is missing: the weights of this run were not kept"):
            compose([*COMMON, f"init={trained[2].id}"])
    finally:
        kept.rename(trained[2].checkpoint)
    with pytest.raises(
        ConfigError, match=r"init=nothing is not the folder of a run, and no id in results begins with it"
    ):
        compose([*COMMON, "init=nothing"])
