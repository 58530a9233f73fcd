"""The command line as a user meets it: exit codes, streams, folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fork_server
import pytest
from small_run import SMALL

from dstrun.cli.main import main

ROOT = Path(__file__).parents[2]


def only_run(folder: Path) -> Path:
    (run,) = (folder / "results" / "default").iterdir()
    return run


@pytest.mark.parametrize("results", ["my results", "it's; exit 3 #", "$(false)*"])
def test_commands_to_go_on_with_are_quoted(results: str, dstrun, tmp_path: Path) -> None:
    said = dstrun(*SMALL, f'results="{results}"').stderr
    said += dstrun("sync", "--offline", results).stderr
    commands = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("next: ")]
    assert len(commands) == 2
    for command in commands:
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, cwd=tmp_path
        )
        named = words.stdout.splitlines()[2:]
        assert named
        assert all((tmp_path / name).exists() for name in named), command


def test_one_run_leaves_a_record_and_is_skipped_the_next_time(dstrun, tmp_path: Path) -> None:
    first = dstrun(*SMALL, fresh=True)
    run = only_run(tmp_path)
    names = {"checkpoint.pt", "config.yaml", "metrics.csv", "record.json", "status.json", "topology.csv"}
    assert names <= {p.name for p in run.iterdir()}
    assert first.stdout.startswith("top-1 ")
    assert f"next: dstrun table {run.parent.relative_to(tmp_path)}" in first.stderr
    record = json.loads((run / "record.json").read_text())
    assert record["updates"] > 0
    assert record["parameters"]["sparsity"] == pytest.approx(0.8, abs=1e-4)
    assert 0.2 < record["parameters"]["explored"] < 1
    before = (run / "record.json").stat().st_mtime_ns
    again = dstrun(*SMALL)
    assert "already done" in again.stdout
    assert (run / "record.json").stat().st_mtime_ns == before
    table = dstrun("table")
    assert f"{record['accuracy']['top1']:.1f} (1)" in table.stdout
    assert dstrun("status").stdout.count("done") == 1
    assert dstrun("plot", "curves", "--out", "c.svg").stdout == "c.svg\n"
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


def test_sweep_runs_all_and_lists_what_failed(dstrun, tmp_path: Path) -> None:
    words = [*SMALL[:3], "epochs=1", "sparsity=0.8", "method=set,rigl", "optimizer.lr=0.05,1e6"]
    done = dstrun("-m", *words, check=False)
    assert done.returncode == 1, done.stderr
    assert "4 runs" in done.stderr
    assert "2 of 4 runs done" in done.stderr
    assert done.stderr.count(": diverged: the loss is not finite at step 11 of 11") == 2
    states = [json.loads(p.read_text())["state"] for p in tmp_path.glob("results/default/*/status.json")]
    assert sorted(states) == ["diverged", "diverged", "done", "done"]


def test_interrupting_a_sweep_ends_all_of_it(tmp_path: Path) -> None:
    """Ctrl-C saves the run it meets and starts no other."""
    words = ["-m", *SMALL[:4], "epochs=500", "seed=0,1,2"]
    command = [sys.executable, "-m", "dstrun", *words]
    process = fork_server.Process(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(tmp_path.glob("results/default/*/metrics.csv")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted: 0 of 3 runs done, 1 saved; the same command continues" in output
    assert "Traceback" not in output
    assert [json.loads(p.read_text())["state"] for p in tmp_path.glob("results/default/*/status.json")] == [
        "interrupted"
    ]


def test_a_second_process_on_a_run_says_who_works_on_it(dstrun, tmp_path: Path) -> None:
    words = [*SMALL[:4], "epochs=2000"]
    command = [sys.executable, "-m", "dstrun", *words]
    first = fork_server.Process(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("results/default/*/status.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        second = dstrun(*words, check=False)
        assert second.returncode == 75
        assert f"is being run by process {first.pid} on " in second.stderr
    finally:
        first.kill()
        first.wait()


def test_run_that_never_updates_says_so(dstrun, tmp_path: Path) -> None:
    done = dstrun(*SMALL, "schedule.updates=0")
    assert "WARNING: the topology will never be updated" in done.stderr
    assert "WARNING: this dynamic run never updated its topology" in done.stderr
    assert json.loads((only_run(tmp_path) / "record.json").read_text())["updates"] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sparsty=0.9"], "sparsty is not a setting here (did you mean sparsity?)"),
        (["tabel"], "tabel is neither a command nor key=value (did you mean table?)"),
        (["resnet56"], "resnet56 is neither a command nor key=value"),
        (["-m", "sparsity=0.9,1.9"], "sparsity=1.9 must be in [0, 1)"),
        (["dataset.root=nowhere"], "dataset.root=nowhere"),
        (["model=vgg16", "dataset=digits"], "model=vgg16 "),
        (["model=resnet20", "model.depth=21", "dataset=digits"], "model.depth=21"),
        (["model=resnet20", "dataset=imagenet"], "data holds no images"),
        (["dataset=digits", "model=mlp", "batch_size=5000"], "batch_size=5000 must be at most 1437"),
        (["dataset=digits", "model=mlp", "sparsity=0.99999"], "sparsity=1e-05"),
        (["dataset=digits", "model=mlp", "wandb=online"], "wandb=online"),
        (["dataset=digits", "model=mlp", "results=/proc/nowhere"], "results=/proc/nowhere cannot be written"),
        (["dataset=digits", "model=mlp", "epochs=1", "schedule.updates=50"], "schedule.updates=50"),
        (["dataset=digits", "model=mlp", "device=cuda"], "device=cuda is not available"),
        (["table", "nowhere"], "nowhere"),
        (["table", "--format", "xml"], "--format"),
        (["plot", "pie"], "pie"),
        (["plot", "curves", ".", "--out", "a.gif"], "a.gif"),
        (["status", "--wach"], "--wach"),
        (["status", "--state", "done,runing"], "--state runing is not known"),
        (["status", "--interval", "0"], "--interval 0 must be above 0"),
        (["status", "--watch", "--format", "csv"], "--watch cannot be combined with --format csv"),
        (["--confg-name", "x"], "--confg-name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_sentence_exit_2_and_nothing_written(words, sentence, dstrun, tmp_path: Path) -> None:
    if "device=cuda" in words:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    done = dstrun(*words, check=False, env={"WANDB_API_KEY": "", "WANDB_MODE": ""})
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("dstrun: ")]
    assert len(said) == 1
    assert len(done.stderr.splitlines()) == 1
    if sentence != "sparsity=1e-05":
        assert sentence in said[0]
    assert list(tmp_path.iterdir()) == []


def test_status_filters_sorts_and_watches_what_is_over(dstrun, tmp_path: Path) -> None:
    for name, state, top1 in (("a", "failed", 10.0), ("b", "interrupted", 20.0), ("c", "failed", 30.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(
            json.dumps({"state": state, "top1": top1, "message": "lr too high"})
        )
    done = dstrun("status", ".", "--state", "failed", "--sort", "top1", "--format", "csv")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["run", "c", "a"]
    assert done.stderr == "3 runs: 2 failed, 1 interrupted\n"
    watched = dstrun("status", ".", "--watch", "--interval", "1000")
    assert [line.split()[0] for line in watched.stdout.splitlines()[2:] if line] == ["a", "lr", "c", "lr", "b"]
    assert watched.stderr == ""
    assert dstrun("status", ".", "--state", "done").stdout.splitlines()[2:] == []


def test_nothing_matched_exits_3(dstrun, tmp_path: Path) -> None:
    for words in (["table", "."], ["status", "."], ["status", ".", "--watch"], ["plot", "curves", "."]):
        assert dstrun(*words, check=False).returncode == 3


def test_damaged_record_is_said_and_skipped(dstrun, tmp_path: Path) -> None:
    dstrun(*SMALL)
    (only_run(tmp_path) / "record.json").write_text("{")
    done = dstrun("table", check=False)
    assert done.returncode == 3
    assert "record.json" in done.stderr


@pytest.mark.parametrize("name", ["checkpoint.pt", "record.json"])
def test_damaged_file_of_a_run_is_named_and_made_again(name: str, dstrun, tmp_path: Path) -> None:
    dstrun(*SMALL)
    run = only_run(tmp_path)
    before = json.loads((run / "record.json").read_text())
    (run / "record.json").unlink()
    (run / name).write_bytes(b"{cut")
    done = dstrun(*SMALL)
    assert f"results/default/{run.name}/{name} is damaged: " in done.stderr
    assert (run / name.replace(".", ".damaged.")).read_bytes() == b"{cut"
    assert json.loads((run / "record.json").read_text())["accuracy"] == before["accuracy"]


def test_results_on_stdout_progress_on_stderr(dstrun, tmp_path: Path) -> None:
    plan = dstrun("plan", *SMALL, "--format", "json")
    assert json.loads(plan.stdout)["parameters"]["prunable"] == 50200
    assert plan.stderr == ""


def test_runs_from_any_folder(dstrun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a" / "b"
    elsewhere.mkdir(parents=True)
    dstrun(*SMALL, cwd=elsewhere)
    assert list(elsewhere.glob("results/default/*/record.json"))


def test_completion_knows_verbs_groups_and_options(dstrun, tmp_path: Path) -> None:
    def ask(line: str) -> set[str]:
        done = dstrun("-sc", "query=bash", env={"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "1"})
        return set(done.stdout.split())

    assert "table" in ask("dstrun ta")
    assert "methods" in ask("dstrun me")
    assert "grow=gse" in ask("dstrun grow=")
    assert "sparsity=" in ask("dstrun spars")
    assert "model=resnet56" in ask("dstrun plan model=resnet5")
    assert ask("dstrun table ") == set()
    assert ask("dstrun -cn ex") == ask("dstrun plan -cn ex") == {"extended"}
    assert "model=resnet56" in ask("dstrun -cn extended model=resnet5")


@pytest.mark.slow
def test_wheel_installs_into_an_empty_environment_and_runs(tmp_path: Path) -> None:
    """The wheel holds the configuration; its dependencies are taken from this environment."""
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(root)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    parents = [p for p in sys.path if p.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(parents)}
    script = "import sys\nfrom dstrun import conf\nfrom dstrun.cli.main import main\n"
    script += "print(conf.__file__)\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [python, "-c", script, *SMALL], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "env") in done.stdout
    assert "top-1" in done.stdout
    code = "from dstrun.report.published import references, shipped; references(); print(shipped())"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "env") in done.stdout
    words = ["-cn", "extended", *SMALL[:3], "epochs=1", "seed=0"]
    done = subprocess.run(
        [python, "-c", script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "1 of 1 run done" in done.stderr


def test_a_table_of_conditions_rows_and_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(next((ROOT / "results/published/vgg16_small-200").glob("*-gse-*/record.json")).read_text())
    for seed in range(2):
        for label in ("set", "gse"):
            folder = tmp_path / f"{label}{seed}"
            folder.mkdir()
            (folder / "record.json").write_text(json.dumps(record | {"label": label, "seed": seed}))
    words = ["table", str(tmp_path), "where=method:gse", "rows=method", "cols=sparsity", "value=flops.train"]
    assert main(words) == 0
    assert "| gse    | 1.92e14 |" in capsys.readouterr().out
    assert main([*words, "--runs", "--format", "csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3
    assert rows[1].endswith(f"{tmp_path}/gse0")
    assert main(["table", str(tmp_path), "where=method:rigl"]) == 3
    assert f"no run below {tmp_path} that meets where=method:rigl" in capsys.readouterr().err
    assert main(["table", str(tmp_path), "whre=method:rigl"]) == 2
    assert "whre=method:rigl is not known here: choose where=, rows=, cols=, value=" in capsys.readouterr().err
