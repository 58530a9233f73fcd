from __future__ import annotations

from pathlib import Path

import pytest

from dstrun.bench import arguments
from dstrun.cli.main import main
from dstrun.cli.words import parser
from dstrun.system.trouble import ConfigError


def read(bench: str, *words: str):
    return arguments.read(bench, parser(f"bench {bench}", "", runs=False), words)


@pytest.mark.parametrize("bench", arguments.BENCHES)
def test_defaults_are_the_settings(bench: str) -> None:
    settings, form, out = read(bench)
    assert settings == arguments.BENCHES[bench]()
    assert (form, out) == (None, Path("results/bench") / f"{bench}.csv")


def test_values_are_read_and_repeated_ones_taken_once() -> None:
    settings, form, _ = read(
        "kernel", "--layers", "VGG512@2,R56-s1,64-32", "--sparsity", "0.9,0.98,0.9", "--threads", "2", "--reference",
        "--limit", "1.5", "--format", "json",
    )  # fmt: skip
    assert settings.layers == ("VGG512@2", "R56-s1", "64-32")
    assert settings.sparsity == (0.9, 0.98)
    assert (settings.threads, settings.reference, settings.limit, form) == (2, True, 1.5, "json")
    assert read("scaling", "--sizes", "64,128", "--memory", "4")[0] == arguments.Scaling(sizes=(64, 128), memory=4.0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["kernel", "--layers", "R56-s4"], "--layers R56-s4 is not known: choose R56-s1"),
        (["kernel", "--layers", "vgg512@4"], "(did you mean VGG512@4?)"),
        (["kernel", "--layers", "64-0"], "--layers 64-0 is not known: choose R56-s1"),
        (["kernel", "--layers", "64x64"], "16384-16384, or I-O for a linear layer from I to O features"),
        (["kernel", "--layers", ","], "--layers is empty"),
        (["kernel", "--sparsity", "0.9,1"], "--sparsity=1.0 must be in [0, 1)"),
        (["kernel", "--sparsity", "high"], "--sparsity=high must be a number"),
        (["infer", "--networks", "64-"], "--networks 64- is not known: write I-O for a linear layer"),
        (["infer", "--batches", "1,0"], "--batches=0 must be at least 1"),
        (["kernel", "--rounds", "0"], "--rounds=0 must be at least 1"),
        (["kernel", "--rounds", "2.5"], "--rounds=2.5 must be a whole number"),
        (["kernel", "--device", "gpu"], "--device=gpu is not known: choose cpu, cuda"),
        (["kernel", "--out", "a.txt"], "--out a.txt must end in .csv"),
        (["kernel", "--layer", "R56-s1"], "--layer"),
        (["scaling", "--sizes", "64,-1"], "--sizes=-1 must be at least 1"),
        (["scaling", "--limit", "0"], "--limit=0.0 must be above 0"),
        (["kernal"], "bench kernal is not known: choose kernel, step, scaling, infer, machine (did you mean kernel?)"),
        ([], "bench needs WHAT, one of kernel, step, scaling, infer, machine"),
    ],
    ids=" ".join,
)
def test_wrong_options_are_one_sentence_and_exit_2(words, sentence, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert sentence in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_known_is_said_before_anything_is_built(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "step", "--model", "resnet57"]) == 2
    assert "(did you mean resnet56?)" in capsys.readouterr().err


def test_settings_say_what_is_wrong_themselves() -> None:
    with pytest.raises(ConfigError, match="threads"):
        read("step", "--threads", "0")
