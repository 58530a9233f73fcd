"""Parts that were not written for dstrun are checked by their source: each fault is a sentence, and nothing is run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dstrun.config import composition, identity
from dstrun.config.plain import adapted, is_plain
from dstrun.config.written import arguments, find, lineage
from dstrun.system.trouble import ConfigError

NETS = '''
raise RuntimeError("checked without being imported")
import torch
import torch.utils.data as data
from dataclasses import dataclass
from torch import nn
from torch.nn import Module as M
from torch.optim import SGD

class Net(nn.Module):
    def __init__(self, num_classes, depth, width=8): ...

class Wide(Net):
    """With the arguments of what it is derived from."""

class Renamed(M):
    def __init__(self, **more): ...

class Bare:
    def forward(self, x): ...

def net(classes, depth=1): ...

class Closure(torch.optim.Optimizer):
    def step(self, closure): ...

class Mine(SGD): ...

class Images(data.Dataset[int]):
    def __init__(self, root, size=8): ...
    def __getitem__(self, i): ...
    def __len__(self): ...

class Endless(data.IterableDataset):
    def __iter__(self): ...

class Lengthless(data.Dataset):
    def __getitem__(self, i): ...

class Split(Images):
    def __init__(self, train): ...

class Triplet(nn.Module):
    def forward(self, anchor, positive, negative): ...

def focal(logits, labels, gamma): ...
'''

WRONG = {
    "model": {
        "plain_nets.Net\n": "conf/model/own.yaml: plain_nets.Net needs depth: add depth: VALUE",
        "plain_nets.Wide\ndepth: 1\nwidht: 2\n": "not a setting of this model (did you mean width?)",
        "plain_nets.Bare\n": "conf/model/own.yaml: plain_nets.Bare is not a torch.nn.Module and has no build",
        "plain_nets.net\ndepht: 2\n": "not a setting of this model (did you mean depth?)",
        "plain_nets.Images\n": "conf/model/own.yaml: plain_nets.Images is not a torch.nn.Module",
        "plain_nets.SGD\n": "SGD is not a class or function defined in plain_nets.py",
        "torchvision.models.resnet81\n": "torchvision.models has no resnet81 (did you mean resnet18?)",
        "torchvision.models.resnet.resnet18\n": "set trusted=[torchvision] on the command line",
    },
    "optimizer": {
        "torch.optim.RMSProp\n": "torch.optim has no RMSProp (did you mean RMSprop?)",
        "torch.optim.LBFGS\n": "torch.optim.LBFGS.step needs closure, and dstrun calls step()",
        "torch.optim.RMSprop\nalhpa: 1\n": "not a setting of this optimizer (did you mean alpha?)",
        "torch.optim.Rprop\nweight_decay: 1\n": "optimizer.weight_decay is not a setting of this optimizer",
        "torch.optim.Adam\nlr: -1\n": "optimizer.lr=-1 must be in (0, 1e+06]",
        "torch.optim.Adam\nlr_schedule: cosin\n": "(did you mean cosine?)",
        "plain_nets.Closure\n": "plain_nets.Closure.step needs closure",
        "plain_nets.Net\ndepth: 1\n": "plain_nets.Net is not a torch.optim.Optimizer and has no build",
    },
    "dataset": {
        "plain_nets.Split\n": "conf/dataset/own.yaml lacks image and classes: a plain dataset needs image: [CHANN",
        "plain_nets.Images\nimage: [1, 8, 8]\nclasses: 2\nroot: .\n": "takes neither train nor split: add train: {",
        "plain_nets.Images\nimage: [1, 8, 8]\nclasses: 2\ntrain: {size: 1}\ntest: {size: 2}\n": "needs root: add",
        "plain_nets.Endless\nimage: [1, 8, 8]\nclasses: 2\n": "plain_nets.Endless is not a map-style data set",
        "plain_nets.Lengthless\nimage: [1, 8, 8]\nclasses: 2\n": "plain_nets.Lengthless is not a map-style data set",
        "plain_nets.Split\nimage: [1, 8]\nclasses: 2\n": "dataset.image=[1, 8] must be channels, height and width",
        "plain_nets.Split\nimage: [1, 8, 8]\nclasses: 1\n": "dataset.classes=1 must be at least 2",
        "plain_nets.Split\nimage: [1, 8, 8]\nclasses: 2\nmean: [0]\n": "dataset.mean and dataset.std go together",
        "plain_nets.Split\nimage: [1, 8, 8]\nclasses: 2\nflip: true\n": "which mirrors nothing",
        "torchvision.datasets.CIFAR11\n": "torchvision.datasets has no CIFAR11 (did you mean CIFAR10?)",
    },
    "loss": {
        "plain_nets.focal\n": "conf/loss/own.yaml: plain_nets.focal needs gamma: add gamma: VALUE",
        "plain_nets.Triplet\n": "plain_nets.Triplet needs anchor, positive, negative, but a loss is called with",
        "torch.nn.CrossEntropyLos\n": "is not trusted",
        "torch.nn.MultiMarginLos\n": "is not trusted",
        "torch.nn.MultiMarginLoss\nmargn: 1\n": "not a setting of this loss (did you mean margin?)",
        "plain_nets.focal\ngamma: 1\nlogits: 1\n": "loss.logits is not a setting of this loss",
    },
}  # fmt: skip
CASES = [(group, text) for group, texts in WRONG.items() for text in texts]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parts that would fail if they were imported."""
    (tmp_path / "plain_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def composed(here: Path, group: str, text: str, *words: str) -> composition.Experiment:
    """Compose with an option whose yaml file holds a text."""
    (here / "conf" / group).mkdir(parents=True, exist_ok=True)
    (here / "conf" / group / "own.yaml").write_text(text)
    return composition.compose([f"{group}=own", *words], ["conf"])


@pytest.mark.parametrize(("group", "text"), CASES, ids=[text.replace("\n", " ")[:50] for _, text in CASES])
def test_what_is_wrong_is_a_sentence(here: Path, group: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        composed(here, group, f"_target_: {text}")
    assert WRONG[group][text] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loss_takes_no_label_smoothing_of_another(here: Path) -> None:
    text = "_target_: torch.nn.MultiMarginLoss\n"
    with pytest.raises(ConfigError, match=r"label_smoothing=0\.1 makes no sense with loss=own"):
        composed(here, "loss", text, "label_smoothing=0.1")
    found = composed(here, "loss", text)
    assert found.choices["loss"] == "own"
    assert found.config["loss"] == {"_target_": "torch.nn.MultiMarginLoss"}


def test_settings_are_shared_out_between_a_part_and_dstrun(here: Path) -> None:
    node = {"_target_": "torch.optim.RMSprop", "alpha": 0.9, "lr_schedule": "cosine"}
    rate = composed(here, "optimizer", "\n".join(f"{key}: {value}" for key, value in node.items())).build("optimizer")
    assert (rate.lr, rate.weight_decay, rate.lr_schedule) == (0.01, 0, "cosine")  # those of the class, and as said
    assert rate.part == {"_target_": "torch.optim.RMSprop", "alpha": 0.9}
    cifar = {"_target_": "torchvision.datasets.CIFAR10", "root": "data", "image": [3, 32, 32], "classes": 10}
    node = adapted("dataset", cifar)  # whose train=True by default is its own
    assert node.keys() == {"_target_", "_recursive_", "image", "classes", "part"}
    assert node["part"] == {"_target_": "torchvision.datasets.CIFAR10", "root": "data"}
    assert adapted("model", {"_target_": "dstrun.model.mlp.MLP"}) == {"_target_": "dstrun.model.mlp.MLP"}


def test_a_run_is_told_apart_by_code_of_ones_own_and_not_by_that_of_a_library(here: Path) -> None:
    library = identity.identity(composed(here, "model", "_target_: torchvision.models.resnet18\n").config)
    assert library["model._target_"] == "torchvision.models.resnet18"
    assert not [key for key in library if key.startswith("code.")]
    before = identity.identity(composed(here, "model", "_target_: plain_nets.net\n").config)
    (here / "plain_nets.py").write_text(NETS + "\n")
    after = identity.identity(composed(here, "model", "_target_: plain_nets.net\n").config)
    assert {key for key in before if before[key] != after[key]} == {"code.plain_nets"}


def test_sources_are_followed_through_imports_and_bases(here: Path) -> None:
    assert find("torchvision.models.vgg16").module == "torchvision.models.vgg"  # type: ignore[union-attr]
    assert arguments("plain_nets.Wide").defaults.keys() == {"num_classes", "depth", "width"}
    assert arguments("plain_nets.Renamed").more
    assert lineage(find("plain_nets.Renamed"))[1] == ["torch.nn.Module"]  # type: ignore[arg-type]
    assert lineage(find("plain_nets.Images"))[1] == ["torch.utils.data.Dataset"]  # type: ignore[arg-type]
    assert is_plain("optimizer", "plain_nets.Mine")
    assert not is_plain("grow", "plain_nets.net")
