"""Runs that are not the same experiment never share an id, and those that are always do.

A default that changes would give other experiments the ids of old ones: write ``tests/golden/defaults.json`` anew, by
``python tests/config/test_identity.py``, for new settings alone, and change a value in ``conf/`` instead.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dstrun.config import identity, upgrade
from dstrun.config.composition import compose
from dstrun.config.identity import code
from dstrun.record.folder import run_id
from dstrun.system.trouble import ConfigError

FEW = ["model=mlp", "dataset=digits"]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "defaults.json"
TARGETS = sorted({yaml.safe_load(p.read_text()).get("_target_", "") for p in ROOT.glob("conf/*/*.yaml")} - {""})
TARGETS += sorted({yaml.safe_load(p.read_text())["method"]["_target_"] for p in ROOT.glob("conf/method/*.yaml")
                   if "_target_" in str(yaml.safe_load(p.read_text()).get("method"))})  # fmt: skip


def defaults() -> dict[str, dict[str, Any]]:
    """Return the default of every setting that has one."""
    found = {"": identity.TOP} | {target: identity.known_fields(target) for target in TARGETS}
    kept = {t: {k: v for k, v in known.items() if v is not MISSING} for t, known in found.items()}
    return json.loads(json.dumps(kept))


def test_defaults_are_for_ever() -> None:
    assert defaults() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("target", TARGETS)
def test_defaults_are_read_off_a_network_as_off_any_other_class(target: str) -> None:
    module, _, name = target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    assert identity.known_fields(target) == {f.name: f.default for f in fields(cls)}


def identify(*words: str) -> str:
    experiment = compose([*FEW, *words])
    return run_id(experiment.config, experiment.choices)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("optimizer.weight_decay=0", "optimizer.weight_decay=0.0"),
        ("optimizer.weight_decay=0", "optimizer.weight_decay=-0.0"),
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("optimizer.lr=0.0001", "optimizer.lr=1e-4"),
        ("grow.gamma=1", "grow.gamma=1.0"),
        ("model.width=2", "model.width=2.0"),
        ("optimizer.lr_milestones=[0,0.5]", "optimizer.lr_milestones=[0.0,0.50]"),
        ("~optimizer.nesterov", "optimizer.nesterov=false"),
        ("~model.width", "model.width=1"),
        ("method=gse", ""),
    ],
)
def test_numbers_count_by_value_and_what_is_not_said_as_its_default(one: str, other: str) -> None:
    assert identify(*one.split()) == identify(*other.split())


@pytest.mark.parametrize(
    "words", ["optimizer.weight_decay=0.001", "optimizer.nesterov=true", "model.width=2", "model.hidden=[300]"]
)
def test_other_values_are_other_runs(words: str) -> None:
    assert identify(words) != identify()


@pytest.mark.parametrize(
    ("words", "unread"),
    [
        ("schedule.interval_steps=20", "schedule.recipe_interval_steps=5"),
        ("schedule.updates=3", "schedule.recipe_steps=1000"),
        ("optimizer.lr_schedule=cosine", "optimizer.lr_milestones=[0.1]"),
        ("optimizer.lr_schedule=constant", "optimizer.lr_drop=0.5"),
        ("method=dst", "method.samples_per_class=3"),
        ("method=set", "method.batch=fresh"),
        ("method=set", "method.samples_per_class=3"),
        ("method=static", "strict=true"),
        ("method=lth method.levels=3", "method.prune_share=0.5"),
        ("method=dsr method.target_count=9", "method.target=0.5"),
        ("method=autosparse method.alpha=0", "method.alpha_end=0.5"),
        ("method=str method.threshold_decay=0", "method.recipe_steps=9"),
        ("method=mest schedule.milestones=[]", "schedule.drop=0.25"),
    ],
)
def test_what_nothing_reads_makes_no_other_run(words: str, unread: str) -> None:
    assert identify(*words.split()) == identify(*words.split(), unread)


@pytest.mark.parametrize(
    "words",
    [
        "schedule.recipe_interval_steps=5",
        "optimizer.lr_milestones=[0.1]",
        "method.batch=fresh method.samples_per_class=3",
        "method=static allocation=erk",
    ],
)
def test_what_is_read_does(words: str) -> None:
    *before, last = words.split()
    assert identify(*before) != identify(*before, last)


def test_a_setting_that_is_added_moves_no_id() -> None:
    """An id is made of what differs from the defaults, so that one run known before and after has one id."""
    after = compose(FEW)
    before = dict(after.config)
    del before["powerprop"], before["strict"]
    before["optimizer"] = {k: v for k, v in before["optimizer"].items() if k != "lr_warmup"}
    before["model"] = {k: v for k, v in before["model"].items() if k != "width"}
    assert run_id(before, after.choices) == run_id(after.config, after.choices)
    assert identity.settings(before) == identity.settings(after.config)


@pytest.mark.parametrize(
    ("words", "group", "target"),
    [
        (FEW, "method", "dstrun.method.dst.DST"),
        (["model=resnet50", "dataset=imagenet"], "model", "dstrun.model.resnet50.ResNet50"),
    ],
)
def test_an_option_that_moved_within_a_version_is_the_same(words: list[str], group: str, target: str) -> None:
    experiment = compose(words)
    node = {key: value for key, value in experiment.config[group].items() if key != "stem"} | {"_target_": target}
    old = replace(experiment, config={**experiment.config, group: node})
    assert upgrade.upgrade(old.config, dict(old.choices))
    assert run_id(old.config, old.choices) == run_id(experiment.config, experiment.choices)


@pytest.mark.parametrize(("group", "name"), sorted({key[:2] for key in upgrade.RENAMED}))
def test_an_option_that_got_another_name_is_the_same(group: str, name: str) -> None:
    for (_, _, key, value), new in ((key, new) for key, new in upgrade.RENAMED.items() if key[:2] == (group, name)):
        experiment = compose(["model=mlp", "sparsity=0.9", "method=static", f"{group}={new}"])
        assert experiment.config[group][key] == value
        old = {**experiment.choices, group: name}
        assert upgrade.upgrade(experiment.config, old)
        assert run_id(experiment.config, old) == run_id(experiment.config, experiment.choices)


def test_what_a_lack_meant_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "MEANT", {"dstrun.schedule.cosine.Cosine": {"end": 0.25, "unheard_of": 1}})
    monkeypatch.setattr(upgrade, "RENAMED", {("schedule", "cosine", "end", 0.25): "early"})
    experiment = compose(FEW)
    old = {**experiment.config, "schedule": {"_target_": "dstrun.schedule.cosine.Cosine", "fraction": 0.2}}
    choices = dict(experiment.choices)
    assert upgrade.upgrade(old, choices)
    assert old["schedule"] == {"_target_": "dstrun.schedule.cosine.Cosine", "fraction": 0.2, "end": 0.25}
    assert choices["schedule"] == "early"
    assert not upgrade.upgrade(old, choices)


OWN = """
import torch
from dstrun.config.option import option

@option
class Tiny:
    size: int = 4

    def build(self): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of a user's own, in a module beside a folder of options."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text("_target_: own_nets.Tiny\nsize: 4\n")
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def own_id(folder: Path) -> str:
    experiment = compose(["model=tiny", "dataset=digits"], [str(folder / "conf")])
    return run_id(experiment.config, experiment.choices)


def test_the_code_of_an_own_option_is_part_of_a_run(own: Path) -> None:
    before = own_id(own)
    assert own_id(own) == before
    (own / "own_nets.py").write_text(OWN.replace("4", "5"))
    assert own_id(own) != before


def test_the_code_that_an_own_option_imports_is_too(own: Path) -> None:
    package = own / "parts"
    package.mkdir()
    (own / "own_nets.py").write_text("import torch\nfrom parts import N\n" + OWN)
    (package / "__init__.py").write_text("from . import deep\nfrom .size import N\n")
    (package / "size.py").write_text("N = 1\n")
    (package / "deep.py").write_text("def late():\n    import own_lone\n")
    (own / "own_lone.py").write_text("import own_nets, dstrun.config.option\n")
    (own / "unread.py").write_text("")
    seen = {own_id(own)}
    for path in (package / "__init__.py", package / "size.py", package / "deep.py", own / "own_lone.py"):
        path.write_text(path.read_text() + "# other\n")
        assert own_id(own) not in seen, path
        seen.add(own_id(own))
    (own / "unread.py").write_text("# other\n")
    assert own_id(own) in seen
    experiment = compose(["model=tiny", "dataset=digits"], [str(own / "conf")])
    assert [*code(experiment.config)] == ["own_lone", "own_nets", "parts", "parts.deep", "parts.size"]


def test_an_own_option_without_a_file_is_said(own: Path) -> None:
    (own / "own_nets.py").unlink()
    with pytest.raises(ConfigError, match="own_nets is neither in a folder of yours"):
        own_id(own)


@pytest.mark.parametrize(("method", "leaf"), [("str", "threshold_lr"), ("sss", "factor_lr")])
def test_what_followed_the_optimizer_then_has_its_value(method: str, leaf: str) -> None:
    config_then = compose([f"method={method}", "optimizer.lr=0.03"]).config
    del config_then["method"][leaf]
    assert upgrade.upgrade(config_then, {})
    assert config_then["method"][leaf] == 0.03


def test_snip_scored_by_batch_statistics_then() -> None:
    config_then = compose(["method=snip"]).config
    del config_then["method"]["statistics"]
    upgrade.upgrade(config_then, {})
    assert config_then["method"]["statistics"] == "batch"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(defaults(), indent=1) + "\n")
