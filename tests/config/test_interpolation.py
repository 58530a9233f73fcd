"""What ``${...}`` may do: one that stands for nothing, or for too much, is a sentence with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.base import Container

from dstrun.cli.main import main
from dstrun.config.composition import compose
from dstrun.config.interpolation import Unresolved, resolving
from dstrun.system.trouble import ConfigError

MODEL = "_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: 1.0\n"
DOUBLED = "".join(f"b{i + 1}: ${{.b{i}}}${{.b{i}}}\n" for i in range(40))
PAIRED = "".join(f"b{i + 1}: ['${{model.b{i}}}', '${{model.b{i}}}']\n" for i in range(40))
CHOSEN = "".join(f"b{i + 1}: ${{oc.select:model.b{i},x}}${{oc.select:model.b{i},x}}\n" for i in range(40))

WHOLE = "'${model.b}', "

BROKEN = {
    "a: ${nope}\n": "model.a: ${nope} cannot be resolved: there is no setting nope",
    "a: ${.b}\nb: x${nope}\n": "model.b: x${nope} cannot be resolved: there is no setting nope",
    "a: {b: ['${nope}']}\n": "model.a.b[0]: ${nope} cannot be resolved: there is no setting nope",
    "a: ${modle}\n": "model.a: ${modle} cannot be resolved: there is no setting modle (did you mean model?)",
    "a: ${......b}\n": "model.a: ${......b} cannot be resolved: ...... points outside the configuration",
    "a: ${foo:3}\n": "model.a: ${foo:3} cannot be resolved: there is no resolver foo",
    "a: ${.a}\n": "model.a: ${.a} cannot be resolved: it refers to itself",
    "a: ${.b}\nb: ${.a}\n": "${.a} cannot be resolved: it refers to itself",
    "a: ${model}\n": "model.a: ${model} cannot be resolved: it refers to its own parent",
    "a: ${.b}\nb: ???\n": "model.a: ${.b} cannot be resolved: model.b has no value (???)",
    "a: ${oc.env:MISSING}\n": "model.a: ${oc.env:MISSING} cannot be resolved: environment variables are not read",
    "a: ${oc.deprecated:nope}\n": "model.a: ${oc.deprecated:nope} cannot be resolved: there is no setting nope",
    "a: ${hydra:runtime.cwd}\n": "model.a: ${hydra:runtime.cwd} cannot be resolved: Hydra's own settings are not read",
    "a: ${oc.decode:'{'}\n": "model.a: ${oc.decode:'{'} cannot be resolved: ",
    "a: '${'\n": "a: ${ cannot be resolved: ",
    "defaults: [{/grow: '${nope}'}]\n": "defaults: ${nope} cannot be resolved: choose allocation, ",
    f"b0: xxxxxxxx\n{DOUBLED}": "cannot be resolved: it grows to more than 5,000 interpolations",
    f"b0: ''\n{DOUBLED}": "cannot be resolved: it grows to more than 5,000 interpolations",
    f"b0: [x]\n{PAIRED}": "cannot be resolved: it grows to more than 5,000 interpolations",
    f"b0: x\n{CHOSEN}": "cannot be resolved: it grows to more than 5,000 interpolations",
    f"b: {'x' * 100_000}\na: '{'${.b}' * 20}'\n": "cannot be resolved: it grows to more than 1,048,576 characters",
    f"b: [{('x' * 100 + ', ') * 400}]\na: [{WHOLE * 40}]\n": "it grows to more than 1,048,576 characters",
}
TYPED = {
    "experiment=${nope}": "there is no setting nope",
    "seed=${experiment}": "default is not a whole number",
    "optimizer.lr=${optimizer.lr}": "it refers to itself",
    "experiment=${oc.env:MISSING}": "environment variables are not read",
    "experiment=${foo:1}": "there is no resolver foo",
}
SWEEPS = {
    "epochs: ${nope}\nhydra: {mode: MULTIRUN}\n": "epochs: ${nope} cannot be resolved: there is no setting nope",
    "hydra: {mode: '${nope}'}\n": "hydra.mode: ${nope} cannot be resolved: there is no setting nope",
    "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '${nope}'}}}\n": "hydra.sweeper.params.seed: ${nope} cannot be",
    "hydra: {mode: MULTIRUN, sweeper: {grids: [{seed: '${x:1}'}]}}\n": "hydra.sweeper.grids[0].seed: ${x:1} cannot be",
    "hydra: {mode: MULTIRUN, launcher: {workers: '${oc.env:NOSUCH}'}}\n": "there is no NOSUCH in the environment",
}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:20])
def test_one_of_a_file_is_a_sentence_with_its_place(text, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("mine/model/odd.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(f"{text}{MODEL}")
    assert main(["--config-dir", "mine", "model=odd", "dataset=digits"]) == 2
    line = said(capsys)
    assert line.startswith(f"dstrun: {file}: ")
    assert BROKEN[text] in line
    assert len(line) < 500


@pytest.mark.parametrize("word", TYPED)
def test_one_that_is_typed_is_a_sentence_with_its_word(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=mlp", "dataset=digits", word]) == 2
    assert said(capsys).startswith(f"dstrun: {word} cannot be resolved: {TYPED[word]}")
    assert main(["-m", "model=mlp", "dataset=digits", "batch_size=32,64", word]) == 2
    assert said(capsys).startswith(f"dstrun: {word} cannot be resolved: {TYPED[word]}")


@pytest.mark.parametrize("text", SWEEPS)
def test_one_of_a_sweep_file_is_a_sentence_with_its_place(text, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.yaml").write_text(f"defaults: [config, _self_]\n{text}")
    assert main(["--config-dir", ".", "-cn", "odd", "model=mlp", "dataset=digits"]) == 2
    line = said(capsys)
    assert line.startswith("dstrun: odd.yaml: ")
    assert SWEEPS[text] in line


def test_those_that_stand_for_something_still_do(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "even.yaml").write_text("_target_: dstrun.model.mlp.MLP\nwidth: 1.0\nhidden: ['${epochs}']\n")
    words = ["model=even", "dataset=digits", "epochs=7", "experiment=a${seed}_${model.width}", "seed=${epochs}"]
    found = compose(words, [str(tmp_path)]).config
    assert found["model"]["hidden"] == [7]
    assert (found["experiment"], found["seed"]) == ("a7_1.0", 7)
    assert found["grow"]["subset"] == found["subset"]


def test_bounds_end_with_what_they_are_for() -> None:
    usual = Container.resolve_parse_tree
    with pytest.raises(Unresolved, match=r"a=\$\{b\} cannot be resolved: there is no setting b"), resolving():
        OmegaConf.to_container(OmegaConf.create({"a": "${b}"}), resolve=True)
    assert Container.resolve_parse_tree is usual
    with pytest.raises(ConfigError, match="not of it"), resolving():
        raise ConfigError("not of it")
