"""The words on record, with the flags that they need, make the same run again from the same folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dstrun.cli import flags
from dstrun.config import composition
from dstrun.config.composition import compose, compose_sweep
from dstrun.config.experiment import Experiment
from dstrun.record.folder import lasting, run_id

CODE = """
from dstrun.config.option import option

@option
class Small:
    width: float = 1.0

    def build(self, image, classes):
        import torch
        return torch.nn.Linear(64, classes)
"""
PRESET = "# @package _global_\ndefaults: [/method/gse@_global_]\nmethod: {samples_per_class: 5}\n"
STUDY = "defaults: [config, _self_]\nepochs: 3\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: 4}}}\n"
SLOW = "_target_: dstrun.optimizer.sgd.SGD\nlr: 0.05\n"
D = ["dataset=digits", "dataset.limit=128"]

CASES = {
    "an option": (["--config-dir=mine", "model=mlp", "optimizer=slow"], ["--config-dir=mine"]),
    "spelled otherwise": (["-cd", "./mine/", "model=mlp", "optimizer=slow"], ["--config-dir=mine"]),
    "with a space": (["--config-dir", "o p", "model=beside"], ["--config-dir=o p"]),
    "one of two": (["-cd", "mine", "-cd", "o p", "optimizer=slow", "model=mlp"], ["--config-dir=mine"]),
    "both": (
        ["-cd", "mine", "-cd", "o p", "optimizer=slow", "model=beside"], ["--config-dir=mine", "--config-dir=o p"]
    ),
    "none": (["-cd", "mine", "-cd", "o p", "model=mlp"], []),
    "a copy of what is shipped": (["-cd", "copy", "model=mlp"], []),
    "by a preset": (["-cd", "mine", "model=mlp", "method=preset"], ["--config-dir=mine"]),
    "a module of another": (["-cd", "code", "-cd", "mine", "model=other"], ["--config-dir=code", "--config-dir=mine"]),
    "a module here": (["-cd", "mine", "model=here"], ["--config-dir=mine"]),
    "a search path": (["hydra.searchpath=[mine]", "model=mlp", "optimizer=slow"], ["hydra.searchpath=[mine]"]),
    "a search path for nothing": (["hydra.searchpath=[mine]", "model=mlp"], []),
    "a sweep file": (["-cn", "study", "-cd", "mine", "model=mlp"], ["-cn", "study", "--config-dir=mine"]),
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder with options and modules of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    shipped = Path(composition.__file__).parents[2] / "conf" / "model" / "mlp.yaml"
    files = {
        "mine/optimizer/slow.yaml": SLOW,
        "mine/method/preset.yaml": PRESET,
        "mine/model/other.yaml": "_target_: in_code_folder.Small\n",
        "mine/model/here.yaml": "_target_: in_this_folder.Small\n",
        "mine/study.yaml": STUDY,
        "o p/model/beside.yaml": "_target_: in_this_folder.Small\n",
        "copy/model/mlp.yaml": shipped.read_text(),
        "code/in_code_folder.py": CODE,
        "in_this_folder.py": CODE,
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def composed(words: list[str]) -> Experiment:
    found = flags.of_run(words)
    name = found.config_name or "config"
    if name != "config":
        [experiment] = compose_sweep(found.overrides, found.config_dir, name)
        return experiment
    return compose(found.overrides, found.config_dir, name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("here")
def test_the_command_has_the_flags_it_needs_and_makes_the_run_again(case: str) -> None:
    words, needed = CASES[case]
    first = composed([*words, *D])
    command = lasting(first.command)
    assert command[: len(needed)] == needed
    assert not [word for word in command[len(needed) :] if word.startswith(("-", "hydra."))]
    again = composed(command)
    assert run_id(again.config, again.choices) == run_id(first.config, first.choices)
    assert again.command == tuple(command)


@pytest.mark.usefixtures("here")
def test_of_a_sweep_each_run_has_the_flags_that_it_needs() -> None:
    found = compose_sweep([*D, "model=mlp", "optimizer=sgd,slow"], ["mine", "o p"])
    assert [[word for word in run.command if word.startswith("-")] for run in found] == [[], ["--config-dir=mine"]]
