"""``dstrun torture``: every kind of fault once on this tree, and bugs that it must find."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest

from dstrun.torture.certificate import Certificate, certify
from dstrun.torture.compare import differences
from dstrun.torture.place import file_system
from dstrun.torture.trial import Verdict, advice, drawn
from dstrun.torture.victim import Attempt


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("torture")
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [sys.executable, str(Path(__file__).with_name("planted.py")), str(folder)]
    done = fork_server.run(command, env={**os.environ, **one}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in folder.iterdir() if p.name.startswith("torture-")] == []
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kind_of_fault_is_survived(found) -> None:
    bad = [v for v in found["kinds"] if v["verdict"] not in ("right", "told")]
    assert not bad, "\n".join(f"{v['kind']}: {v['said']}: {v['verdict']}: {v['why']}\n{v['output']}" for v in bad)
    missed = [v["kind"] for v in found["kinds"] if not v["struck"] and v["kind"] not in found["skipped"]]
    assert len(missed) <= 3, missed


@pytest.mark.parametrize(
    ("bug", "verdict"),
    [
        ("none", "right"),
        ("end not saved", "wrong"),
        ("momentum lost", "wrong"),
        ("rows twice", "wrong"),
        ("exit code 0", "lost"),
        ("left behind", "litter"),
    ],
)
def test_planted_bugs_are_found(found, bug: str, verdict: str) -> None:
    assert found["bugs"][bug]["verdict"] == verdict, found["bugs"][bug]


def test_page_and_json_tell_the_same(found) -> None:
    said = json.loads(found["json"])
    assert found["page"].startswith(f"# dstrun torture: {said['verdict']}")
    assert sum(row["faults"] for row in said["kinds"]) == sum(v["struck"] for v in said["faults"])
    assert all(f["repeat"].endswith(f"--seed 1 --only {f['number']}") for f in said["faults"])


def test_a_certificate_holds_only_where_all_was_done_and_nothing_is_bad() -> None:
    right = [Verdict(n, "changed", "gse", "") for n in range(2)]
    assert Certificate({}, 0, 2, verdicts=right).holds
    assert not Certificate({}, 0, 3, verdicts=right).holds
    right[1].worsen("told", "")
    assert Certificate({}, 0, 2, verdicts=right).holds
    for verdict in ("litter", "lost", "wrong", "traceback"):
        right[1].worsen(verdict, "")
        assert right[1].verdict == verdict
        assert not Certificate({}, 0, 2, verdicts=right).holds
        assert f"NOT SAFE: 1 {verdict}" in Certificate({}, 0, 2, verdicts=right).page()
    right[1].worsen("told", "")
    assert right[1].verdict == "traceback"


@pytest.mark.parametrize("how", ["in: <_io.FileIO>", "on calling ctypes callback function: <function f at 0x7f>"])
def test_what_python_could_not_raise_is_no_traceback(how: str) -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    def f():\n\n  File "b.py", line 2\n'
    said = f"begins\nException ignored {how}\n{trace}MemoryError: \nends\n"
    assert not Attempt(0, said, 1.0).broken
    assert Attempt(0, f"{said}{trace}MemoryError: \n", 1.0).broken


def test_what_differs_is_named() -> None:
    import torch

    a = {"x": [1, torch.tensor([0.0, 1.0])], "y": {"z": 1}}
    assert list(differences(a, {"x": [1, torch.tensor([0.0, 1.0])], "y": {"z": 1}})) == []
    assert list(differences(a, {"x": [1, torch.tensor([-0.0, 1.0])], "y": {"z": 1.0}})) == ["x[1]", "y.z"]
    assert list(differences(a, {"x": [1], "y": None})) == ["x", "y"]


def test_every_kind_comes_once_before_one_comes_again() -> None:
    kinds = list("abcde")
    order = [drawn(3, number, kinds) for number in range(10)]
    assert sorted(order[:5]) == sorted(order[5:]) == kinds
    assert order == [drawn(3, number, kinds) for number in range(10)]
    assert order != [drawn(4, number, kinds) for number in range(10)]


def test_advice_is_taken_below_the_folder_only(tmp_path: Path) -> None:
    said = "results/a/b/record.json is damaged: remove it\nremove results/../../x, too\nresults/c is well"
    assert advice(said, tmp_path) == [tmp_path / "results/a/b/record.json"]


def test_file_systems_have_names() -> None:
    assert file_system(Path("/proc")).startswith("proc at /proc")


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dstrun.torture.certificate.refer", interrupted)
    made = certify(tmp_path / "here", 5, 0)
    assert not made.holds
    assert "stopped early, of 5" in made.page()
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("word", ["--faults=0", "--workers=0", "--only=-1", "--out=page.txt"])
def test_wrong_words_are_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dstrun.cli.main import main

    assert main(["torture", word]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert word.split("=")[0] in said
