"""Every word is obeyed, or refused in one sentence before anything is written or started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from refused_words import OWN, REFUSED, D

from dstrun.cli import main as cli
from dstrun.cli.complete import candidates
from dstrun.cli.help import GROUP, SWEEPS, defaults, of
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.config.schema import DEFAULTS
from dstrun.launcher import sweep
from dstrun.record.folder import run_id
from dstrun.system.trouble import ConfigError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: None) -> Path:
    """A folder with files of a user's own."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("nets", "sets", "synt", "raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Collect what would train."""
    found: list[Experiment] = []
    monkeypatch.setattr(cli, "run_one", lambda experiment: found.append(experiment) or 0)

    def run(self: sweep.Sweep) -> list[sweep.Ending]:
        found.extend(task.experiment for task in self.tasks)
        return []

    monkeypatch.setattr(sweep.Sweep, "run", run)
    return found


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused_in_one_sentence(line: str, here: Path, started: list, capsys: pytest.CaptureFixture) -> None:
    before = sorted(here.rglob("*.*"))
    assert cli.main(shlex.split(line)) == 2
    said = capsys.readouterr()
    (sentence,) = said.err.splitlines()
    assert sentence.startswith("dstrun: ")
    assert REFUSED[line] in sentence
    assert said.out == ""
    assert started == []
    assert [path for path in sorted(here.rglob("*.*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("", "dstrun help settings"),
        ("-h", "dstrun help settings"),
        ("help", "dstrun help settings"),
        ("--config-dir conf -h", "dstrun help settings"),
        ("--config-dir conf -cn sweepfile --help", "dstrun help settings"),
        (f"{D} seed=77 --help", "  seed=0 "),
        (f"-m {D} seed=1,2 -h", "model=mlp\n\n"),
        ("help all", "Groups (NAME=OPTION"),
        ("help settings", "  label_smoothing=0.0 "),
        ("help sweeps", "Sweep files (-cn NAME):"),
        ("help model", "Default: model=resnet56"),
        ("--config-dir conf help model", "  tiny"),
        ("help --config-dir conf model=plain", "\n  model.width=3"),
        ("help model=resnet56", "\n  model.depth=56  "),
        ("help grow.gamma", "\n  grow.gamma=1.0  "),
        ("help lr", "\n  optimizer.lr=0.1  "),
        ("help method=rigl", "Paper: RigL"),
        ("help rigl", "allocation=erk prune=magnitude"),
        ("help dataset=fashion_mnist", "Xiao et al. 2017"),
        ("table help", "usage: dstrun table"),
        ("help bench kernel", "usage: dstrun bench kernel"),
        ("help table", "usage: dstrun table"),
        ("-h plan", "usage: dstrun plan"),
        ("table --format xml --help", "usage: dstrun table"),
        ("bench kernel x --help", "usage: dstrun bench kernel"),
        (f"{D} --version", "dstrun "),
        ("table --version", "dstrun "),
        (f"{D} -V", "dstrun "),
        (f"-m {D} version", "dstrun "),
        ("--info --config-dir conf model=mlp", "Defaults Tree"),
        (f"{D} seed=7 --cfg job", "seed: 7"),
        (f"-m {D} seed=5,6 --cfg job", "seed: 6"),
        ("--config-dir conf -cn sweepfile --cfg job", "seed: 1"),
        (f"--cfg hydra {D}", "launcher:"),
        (f"{D} --cfg job --package model --resolve", "# @package model"),
        (f"-m {D} seed=5,6 --info defaults", "Defaults List"),
        ("--hydra-help", "Hydra ("),
    ],
)
def test_what_shows_starts_nothing(
    line: str, shows: str, here: Path, started: list, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = cli.main(shlex.split(line))
    except SystemExit as ended:  # argparse
        code = ended.code
    said = capsys.readouterr()
    assert code == 0
    assert shows in said.out
    assert "DEBUG" not in said.err
    assert started == []


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (f"{D} results=~/x", {"results": "{home}/x"}),
        (f"-m {D} results=~/x,~/y seed=0", {"results": "{home}/x"}),
        (f"{D} 'results=my results'", {"results": "my results"}),
        (f"{D} experiment=12e4567 results=1e5", {"experiment": "12e4567", "results": "1e5"}),
        (f"{D} experiment=${{seed}} seed=4", {"experiment": "4"}),
        (
            f"{D} ~wandb ~seed ~checkpoint",
            {"wandb": DEFAULTS["wandb"], "seed": 0, "checkpoint": {"every_minutes": 10.0}},
        ),
        ("--config-dir conf model=tiny dataset=digits", {"model": {"_target_": "nets.Tiny"}}),
        ("-cd conf -cd conf model=tiny dataset=digits -m seed=3 wandb=disabled", {"seed": 3}),
        (f"seed=5 -r {D} -cn config", {"seed": 5}),
        ("model=tiny --config-dir conf dataset=digits seed=6", {"model": {"_target_": "nets.Tiny"}, "seed": 6}),
        (f"{D} seed=7,8 --multirun", {"seed": 7}),
    ],
)
def test_it_is_obeyed(line: str, values: dict, here: Path, started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(shlex.split(line)) == 0
    found = started[0].config
    assert {key: found[key] for key in values} == {
        key: value.format(home=os.environ["HOME"]) if isinstance(value, str) else value for key, value in values.items()
    }


SILENT = ("model=resnet101", "model=lenet", "dataset.root=/nope", "clean", "backend=csr")


@pytest.mark.parametrize("line", SILENT)
def test_no_hint_rather_than_a_silly_one(line: str, here: Path, started: list, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["-m", *shlex.split(line)] if "=" in line else [line]) == 2
    assert "did you mean" not in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("line", ["-m", "--multirun", "--config-dir conf -m"])
def test_a_sweep_of_nothing_is_shown_how_to_sweep(
    line: str, here: Path, started: list, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(shlex.split(line)) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[0]) == ("", SWEEPS.splitlines()[0])
    assert started == []


@pytest.mark.parametrize("topic", [None, "all", *GROUP, *(f"{group}={name}" for group, name in defaults().items())])
def test_help_fits_a_terminal_and_survives_the_shell(topic: str | None) -> None:
    lines = of([topic] if topic else [], strict=True).splitlines()
    assert [line for line in lines if line.startswith("  dstrun ") and LOOSE.search(line.split("   ")[0])] == []
    assert max(map(len, lines)) <= 80
    assert topic or len(lines) <= 24


COMPLETED = {
    "ta": ["table"],
    "--config-dir conf ta": ["table"],
    "table --form": ["--format"],
    "table --format ": ["md", "csv", "json", "latex", "html"],
    "plot cur": ["curves"],
    "plot curves ": [],
    "bench sc": ["scaling"],
    "bench kernel --re": ["--reference"],
    "eval RUN --split t": ["train", "test"],
    "help metho": ["methods", "method"],
    "help grow=": ["grow=gradient", "grow=gse", "grow=random"],
    "backend=": ["backend=masked", "backend=sparse", "backend=auto"],
    "model=mlp strict=": ["strict=true", "strict=false"],
    "epochs=": [],
    "-m method=set,rig": ["method=set,rigl"],
    "--multi": ["--multirun"],
    "model=mlp optimizer.nesterov=": ["optimizer.nesterov=true", "optimizer.nesterov=false"],
    "optimizer=adamw optimizer.lr_sch": ["optimizer.lr_schedule="],
    "method=dst method.rounding=": ["method.rounding=ceil", "method.rounding=floor"],
    "method.noise=": ["method.noise=gradients", "method.noise=weights"],
    "dataset=mnist dataset.augment=": ["dataset.augment=true", "dataset.augment=false"],
    "grow.gamma=": [],
    "subset=gra": ["subset=grabo", "subset=graest"],
    "tracker=[wandb,m": ["tracker=[wandb,mlflow"],
    "table whe": ["where="],
    "table where=method:gse,ri": ["where=method:gse,rigl"],
    "status --state done ": [],
    "plot curves where=state:d": ["where=state:done", "where=state:diverged", "where=state:damaged"],
    "table rows=method,spars": ["rows=method,sparsity"],
    "plot curves rows=me": [],
    "eval RUN dev": ["device="],
    "-m hydra/launcher=slurm hydra.launcher.stderr": ["hydra.launcher.stderr_to_stdout="],
    "-m hydra/launcher=slurm hydra.launcher.stderr_to_stdout=": [
        "hydra.launcher.stderr_to_stdout=true",
        "hydra.launcher.stderr_to_stdout=false",
    ],
    "-m hydra.launcher.runs_per_gpu=": ["hydra.launcher.runs_per_gpu=1"],
    "-m hydra.launcher.workers=": [],
}


@pytest.mark.parametrize("line", COMPLETED)
def test_the_shell_completes(line: str) -> None:
    *before, word = line.split(" ")
    assert candidates(before, word) == COMPLETED[line]


def test_the_shell_completes_runs_and_keys_of_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = next((HERE / "results" / "published").rglob("record.json"))
    run = tmp_path / "results" / "default" / kept.parent.name
    run.mkdir(parents=True)
    shutil.copy(kept, run)
    monkeypatch.chdir(tmp_path)
    assert candidates(["eval"], "") == candidates(["diff", "a"], run.name[:3]) == [run.name]
    assert candidates(["show", run.name], "") == []
    assert candidates(["weights"], "results/") == [f"results/default/{run.name}"]
    assert candidates([], f"init={run.name[:3]}") == [f"init={run.name}"]
    assert "where=accuracy.top1" in candidates(["table"], "where=accu")
    assert "where=allocation:" in candidates(["table"], "where=alloc")
    assert candidates(["table", "elsewhere"], "where=accu") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_what_makes_it_ask(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert cli.main(["-sc", f"install={shell}"]) == 0
    script = capsys.readouterr().out
    asked = {"bash": "complete -p dstrun", "zsh": 'echo "${_comps[dstrun]}"', "fish": "complete -c dstrun"}[shell]
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    home = {**os.environ, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    done = subprocess.run([shell, *flags, "-c", f"{script}\n{asked}"], capture_output=True, text=True, env=home)
    assert "_dstrun" in done.stdout
    assert done.stderr == ""


def test_bash_completes_behind_what_breaks_its_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readline holds ``gse`` of ``grow=gse`` to be the word, as ``=`` breaks words for it."""
    assert cli.main(["-sc", "install=bash"]) == 0
    answers = "dstrun() { echo grow=gradient; echo 'grow=g*'; }\nCOMP_LINE='dstrun grow=g' COMP_POINT=13"
    script = f"{capsys.readouterr().out}\n{answers}\n_dstrun dstrun g grow\nprintf '<%s>' \"${{COMPREPLY[@]}}\""
    for name in ("gum", "grow=gem"):
        (tmp_path / name).touch()
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "<gradient><g*>"


def test_fish_completes_with_the_answers_and_with_files_where_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    assert cli.main(["-sc", "install=fish"]) == 0
    answers = "function dstrun; test \"$COMP_LINE\" = 'dstrun grow=g'; and printf 'grow=gradient\\ngrow=g*\\n'; end"
    asked = "complete -C 'dstrun grow=g'; complete -C 'dstrun --out gu'"
    (tmp_path / "gum").touch()
    script = f"{capsys.readouterr().out}\n{answers}\n{asked}"
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=home
    )
    assert sorted(done.stdout.split()) == ["grow=g*", "grow=gradient", "gum"]


HERE = Path(__file__).parents[2]
PAGES = [*HERE.glob("*.md"), *(HERE / "docs").glob("*.md"), *(HERE / "dstrun" / "cli").rglob("*.py")]
LOOSE = re.compile(r"[?*<>!\[\]{}()|;$]")
"""What bash or zsh reads as more than itself."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_survive_the_shell(page: Path) -> None:
    """Conditions are quoted wherever they stand, and so is every word of a command that is shown by itself."""
    text = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"" if page.suffix == ".md" else r"'[^'\n]*'", "Q", page.read_text("utf-8"))
    conditions = re.findall(r"(?<![\w'\"])where=[^\s`,'\"]*", text)
    assert [word for word in conditions if LOOSE.search(word) and "..." not in word] == []
    commands = re.findall(r"^ *(?:\$ )?dstrun (.*)", re.sub(r"\\\n *", "", text), re.MULTILINE)
    words = [word for line in commands for word in re.split(r"  +|  #|\t| [>|] |[;`]", line)[0].split()]
    assert [word for word in words if LOOSE.search(word)] == []


def test_experiments_and_results_of_a_sweep_are_runs_of_their_own(here: Path, started: list) -> None:
    assert cli.main(shlex.split(f"-m {D} experiment=a,b results=x,y")) == 0
    assert {(e.config["experiment"], e.config["results"]) for e in started} == {
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"),
    }  # fmt: skip


def test_a_module_beside_options_is_found_in_other_processes_too(here: Path, tmp_path: Path) -> None:
    """As a sweep's child or a SLURM job gets it: pickled, in another folder."""
    import pickle

    found = compose(["model=tiny", "dataset=digits"], ["conf"])
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).build('model'))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(found), capture_output=True, cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert b"nets.Tiny object" in done.stdout, done.stderr


def test_an_option_in_a_folder_has_an_id_without_a_slash(here: Path) -> None:
    found = compose(["model=mine/net", "dataset=digits"], ["conf"])
    assert run_id(found.config, found.choices).startswith("mine.net-digits-")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "a/b"), 2, "dstrun: a/b: Permission denied\n"),
        (
            OSError(28, "No space left on device", "a"),
            1,
            "dstrun: a cannot be written or read: No space left on device; free space or inodes there\n",
        ),
        (MemoryError(), 1, "dstrun: out of memory: free some, or use a smaller model or batch_size\n"),
        (ConfigError("one\ntwo"), 2, "dstrun: one two\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_sentences(error, code, said, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setitem(sys.modules, "dstrun.cli.verb.doctor", SimpleNamespace(main=fail))
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_our_own_shows_where_it_is_and_where_to_tell(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "dstrun.cli.verb.doctor", SimpleNamespace())
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "AttributeError: " in said
    assert "this is a bug in dstrun" in said.splitlines()[-1]


def test_letters_that_cannot_be_shown_are_replaced() -> None:
    code = "import sys; from dstrun.cli.main import settle; settle(); print('1 ± 2'); print('±', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"1 ? 2\n", b"\\xb1\n")


def test_a_user_without_home_and_name_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "x")  # so that what is set below goes again
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    cli.settle()
    assert Path.home() == Path(os.devnull)
    assert getpass.getuser() == f"user{os.getuid()}"
