"""What papers call things."""

from __future__ import annotations

import pytest

from dstrun.cli.help import options
from dstrun.report.names import NAMES, keys, spelled, worded


def test_every_method_network_and_allocation_has_a_name() -> None:
    for group in ("method", "model", "allocation", "optimizer"):
        assert set(options(group)) <= NAMES.keys(), group


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rigl", "RigL"),
        ("gse (epochs=4, batch_size=32), sparse, 90%", "GSE (4 epochs, batch size 32), sparse, 90%"),
        ("gse (grow.gamma=0.5)", "GSE (γ = 0.5)"),
        ("set (allocation=er_fan_in)", "SET (Erdős–Rényi (fan-in))"),
        ("resnet56, cifar10 (validation), 98%", "ResNet-56, CIFAR-10 (validation), 98%"),
        ("a-method-of-mine", "a-method-of-mine"),
        ("gse-own", "gse-own"),
        ("mine (mine.depth_first=2)", "mine (depth first 2)"),
    ],
)
def test_rows_and_panels(text: str, name: str) -> None:
    assert spelled(text) == name


def test_your_own_names_win() -> None:
    assert spelled("gse (epochs=4)", {"gse": "Ours"}) == "Ours (4 epochs)"
    assert spelled("gse (epochs=4)", {"gse (epochs=4)": "Short"}) == "Short"
    assert keys(["gse (epochs=4)", "rigl", "set"], {"gse": "Ours"}) == "Ours (gse)"
    assert keys(["resnet56, cifar10"]) == "ResNet-56 (resnet56), CIFAR-10 (cifar10)"


def test_sentences_have_no_keys() -> None:
    said = worded("training differs: optimizer.lr_drop 0.1 (dense, set), 0.2 (rigl); differs: dataset.limit=null")
    assert said == "training differs: learning rate drop 0.1 (Dense, SET), 0.2 (RigL); differs: all images"
    assert worded("a set of random seeds, 0.5, Fig. 6, record.") == "a set of random seeds, 0.5, Fig. 6, record."
