"""The example of parts of one's own runs as its README says, and its plan counts what its run does."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import fork_server
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_parts"
COMMANDS = [line.split() for line in (EXAMPLE / "README.md").read_text().splitlines() if line.startswith("dstrun ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, in which its runs leave their results."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "own_parts"))


def test_every_command_of_the_readme_works(dstrun, folder: Path) -> None:
    said = {}
    for _, *words in COMMANDS:
        more = [] if "table" in words else ["wandb=disabled"]
        said[words[0], "model=net" in words] = dstrun(*words, *more, cwd=folder).stdout
    records = [json.loads(path.read_text()) for path in folder.glob("results/default/*/record.json")]
    lion, rigl, halfway = (
        next(record for record in records if record["choices"]["loss"] == name) for name in ("focal", None, "margin")
    )
    assert {*lion["code"]["own"]} >= {"mine.net", "mine.squares", "mine.lion", "mine.focal", "mine.prune.noisy"}
    assert lion["accuracy"]["top1"] > 90
    assert (rigl["choices"]["optimizer"], rigl["choices"]["backend"]) == ("rmsprop", "sparse")
    assert all(record["updates"] > 0 for record in records)
    assert json.loads(said["plan", True])["flops"]["train"] == halfway["flops"]["train"]
    assert "layer4.1.conv2" in said["plan", False]
    assert "halfway" in said["table", False]


def test_a_run_of_plain_parts_goes_on_where_it_was_stopped(dstrun, folder: Path) -> None:
    words = ["--config-dir", "conf", "model=net", "dataset=squares", "optimizer=lion", "loss=focal", "wandb=disabled"]
    words += ["batch_size=30", "sparsity=0.8", "threads=1"]
    dstrun(*words, "epochs=2", "experiment=whole", cwd=folder)
    code = folder / "stopped.py"
    code.write_text(
        "import os, sys\n"
        "from dstrun.train import training\n"
        "from dstrun.cli.main import main\n"
        "take = training.Training.take_step\n"
        "def stopped(self):\n"
        "    if self.step == 15:  # of 20\n        os.kill(os.getpid(), 15)\n"
        "    return take(self)\n"
        "training.Training.take_step = stopped\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    stop = [sys.executable, "stopped.py", *words, "epochs=2", "experiment=parts"]
    assert fork_server.run(stop, cwd=folder, capture_output=True).returncode != 0
    dstrun(*words, "epochs=2", "experiment=parts", cwd=folder)
    whole, parts = (
        next(folder.glob(f"results/{name}/*/metrics.csv")).read_text().splitlines() for name in ("whole", "parts")
    )
    names = whole[0].split(",")
    kept = [i for i, name in enumerate(names) if name in ("epoch", "train_loss", "loss", "top1", "lr")]
    assert [[row.split(",")[i] for i in kept] for row in whole] == [[row.split(",")[i] for i in kept] for row in parts]
