"""What a configuration may call: nothing but options, and classes that the user trusts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from dstrun.config import composition, identity, trust
from dstrun.config.composition import compose_sweep
from dstrun.system import bounded
from dstrun.system.trouble import ConfigError

ROOT = Path(__file__).parents[2]
TOUCH = "from pathlib import Path\nPath({!r}).touch()\n"

HOSTILE = {
    "model": [
        "_target_: os.system\ncommand: touch hit\n",
        "_target_: builtins.exec\n",
        "_target_: torch.hub.load\nrepo_or_dir: .\nmodel: x\nsource: local\n",
        "_target_: urllib.request.urlretrieve\nurl: file:///etc/passwd\nfilename: hit\n",
        "_target_: dstrun.grow.gse.GSE\n",
        "_target_: dstrun.config.composition.compose\n",
        "_target_: dstrun.model.mlp.os.system\n",
        "_target_: dstrun.system.whole.write_atomic\npath: hit\ncontent: x\n",
        "_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: {_target_: os.system, command: touch hit}\n",
        "_target_: dstrun.model.mlp.MLP\nhidden: [{_target_: os.mkdir, path: hit}]\nwidth: 1.0\n",
        "_target_: dstrun.model.mlp.MLP\n_partial_: true\nhidden: [4]\nwidth: 1.0\n",
        "_target_: dstrun.model.mlp.MLP\n_args_: [1]\nhidden: [4]\nwidth: 1.0\n",
        "_target_: [os, system]\n",
        "_target_: own.Popen\nargs: [touch, hit]\n",
        "_target_: torchvision.datasets.utils.download_url\nurl: file:///etc/passwd\nroot: hit\n",
        "_target_: torchvision.models.nosuch\n",
        "_target_: missing.Net\n",
        "_target_: installed.deep.Net\n",
        "_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: ${oc.env:HOME}\n",
        "_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: ${oc.${y:}env:HOME}\n",
        "# @package _global_\ntrusted: [os]\nmodel: {_target_: os.system, command: touch hit}\n",
        "# @package _global_\nhydra: {callbacks: {x: {_target_: os.mkdir, path: hit}}}\n",
        "# @package _global_\nhydra: {job_logging: {formatters: {x: {(): os.mkdir, path: hit}}}}\n",
        "# @package _global_\nhydra: {hydra_logging: {handlers: {x: {class: os.mkdir}}}}\n",
        "# @package _global_\nhydra: {launcher: {_target_: os.mkdir, path: hit}}\n",
    ],
    "dataset": ["_target_: dstrun.dataset.cifar._timeout\n", "_target_: dstrun.dataset.cache.cached\n"],
    "optimizer": ["_target_: torchvision.models.resnet18\n", "_target_: dstrun.model.mlp.MLP\n"],
    "schedule": ["_target_: own.made\n"],
    "loss": ["_target_: torch.nn.Module\n", "_target_: torch.load\nf: hit\n"],
}
CASES = [(group, text) for group, texts in HOSTILE.items() for text in texts]


@pytest.mark.parametrize(("group", "text"), CASES, ids=[text.split("\n")[0][:60] for _, text in CASES])
def test_hostile_files_are_refused_before_anything_is_called_or_imported(
    group: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "installed").mkdir(parents=True)
    (site / "installed" / "__init__.py").write_text(TOUCH.format(str(tmp_path / "hit")))
    (site / "installed" / "deep.py").write_text("class Net:\n    def build(self, image, classes): ...\n")
    here = tmp_path / "here"
    (here / group).mkdir(parents=True)
    (here / group / "evil.yaml").write_text(text)
    (here / "own.py").write_text(
        TOUCH.format(str(tmp_path / "hit")) + "from subprocess import Popen\ndef made(): pass\n"
    )
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    before = set(sys.modules)
    for compose in (composition.compose, *[compose_sweep] * ("@package" in text)):
        with pytest.raises(ConfigError) as error:
            compose([f"{group}=evil"], [str(here)])
        assert "\n" not in str(error.value)
    assert not {"own", "installed", "missing"} & (set(sys.modules) - before)
    assert not list(tmp_path.rglob("hit"))


def test_trusted_packages_and_own_classes_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, here = tmp_path / "site-packages", tmp_path / "here"
    (site / "installed_nets").mkdir(parents=True)
    (site / "installed_nets" / "__init__.py").touch()
    (site / "installed_nets" / "deep.py").write_text("class Net:\n    def build(self, image, classes): ...\n")
    (here / "model").mkdir(parents=True)
    (here / "model" / "theirs.yaml").write_text("_target_: installed_nets.deep.Net\n")
    (here / "model" / "mine.yaml").write_text("_target_: gate_own_nets.Net\n")
    (here / "gate_own_nets.py").write_text("class Net:\n    made = True\n\n    def build(self, image, classes): ...\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    with pytest.raises(ConfigError, match=r"set trusted=\[installed_nets\] on the command line"):
        composition.compose(["model=theirs"], [str(here)])
    found = composition.compose(["model=theirs", "trusted=[installed_nets]"], [str(here)])
    assert found.config["trusted"] == ["installed_nets"]
    assert "trusted" not in identity.identity(found.config)
    assert composition.compose(["model=mine"], [str(here)]).build("model").made
    (here / "gate_space" / "inner").mkdir(parents=True)  # folders without __init__.py
    (here / "gate_space" / "inner" / "nets.py").write_text(
        "class Net:\n    made = True\n\n    def build(self, image, classes): ...\n"
    )
    (here / "model" / "inner.yaml").write_text("_target_: gate_space.inner.nets.Net\n")
    assert composition.compose(["model=inner"], [str(here)]).build("model").made
    with pytest.raises(ConfigError, match="must be a list of packages"):
        composition.compose(["model=theirs", "trusted=['a.b']"], [str(here)])


def test_every_option_shipped_is_one() -> None:
    for path in ROOT.glob("conf/*/*.yaml"):
        if target := yaml.safe_load(path.read_text()).get("_target_"):
            assert trust.is_option(target), target


@pytest.mark.parametrize(
    "target", ["dstrun.layer.criterion.Cost", "dstrun.bench.kernel.main", "dstrun.cli.verb.plan.main"]
)
def test_the_text_of_a_record_imports_options_alone(target: str) -> None:
    assert not trust.is_option(target)
    assert identity._class(target) is None


def test_the_text_of_a_record_imports_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "__init__.py").write_text("raise SystemExit(1)")
    (tmp_path / "hostile" / "deep.py").write_text("class Net:\n    def build(self, image, classes): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert identity.exists("hostile.deep.Net")
    assert "hostile" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n"
                                                          for i in range(1, 9)),
        "[" * 60 + "]" * 60,
        "#" * (bounded.YAML_BYTES + 1),
    ],
    ids=["laughs", "deep", "long"],
)  # fmt: skip
def test_yaml_out_of_bounds_is_refused_unread_where_it_is_used(text: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "evil.yaml").write_text(text)
    os.mkfifo(tmp_path / "model" / "pipe.yaml")
    assert composition.compose(["model=mlp"], [str(tmp_path)]).choices["model"] == "mlp"
    for folders, words in (([str(tmp_path)], []), ([], [f"hydra.searchpath=[{tmp_path}]"])):
        with pytest.raises(ConfigError, match=r"evil.yaml is over the limits"):
            composition.compose(["model=evil", *words], folders)
        with pytest.raises(ConfigError, match="pipe"):
            composition.compose(["model=pipe", *words], folders)


def test_homes_are_looked_up_in_one_place() -> None:
    """``Path.expanduser`` raises what is no sentence where there is no such user."""
    for file in (ROOT / "dstrun").rglob("*.py"):
        assert ".expanduser()" not in file.read_text(), file
