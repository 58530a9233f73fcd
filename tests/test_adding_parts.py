"""A part of every kind is added as CONTRIBUTING.md says, a file and mostly a yaml, used, and taken out again.

Options lie outside the package, as those of a user do; a verb and a figure in a copy of it. Nothing else is edited.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from dstrun.cli.main import main
from dstrun.cli.verb import VERBS

PACKAGE = Path(__file__).parents[1] / "dstrun"
RUN = next(PACKAGE.parent.glob("results/published/vgg16_small-200/*-gse-*/record.json")).parent
"""A finished run."""

OPTIONS = {
    "prune/oldest": '''
"""Prune the connections with the lowest position."""
from typing import Annotated, ClassVar
from dstrun.config.option import AtLeast, option

@option
class Oldest:
    skip: Annotated[int, AtLeast(0)] = 0
    needs_gradient: ClassVar[bool] = False

    def score(self, layer, generator):
        import torch

        return (torch.arange(layer.count) - self.skip).abs().float()
''',
    "subset/corner": '''
"""Draw candidates near the first input and output."""
from typing import Annotated, ClassVar
from dstrun.config.option import Above, option

@option
class Corner:
    fall: Annotated[float, Above(0)] = 1.0
    aggregates: ClassVar[bool] = False

    def factors(self, context):
        import torch

        out, groups = context.geometry.shape[0], context.geometry.groups
        inputs = context.size // out
        f = 1 / (1 + torch.arange(inputs) * self.fall / inputs)
        return f.expand(groups, inputs), 1 / (1 + torch.arange(out) * self.fall / out)
''',
    "allocation/tapered": '''
"""Leave the last layers denser."""
import math
from typing import Annotated
from dstrun.allocation.apportion import apportion
from dstrun.config.option import Above, option

@option
class Tapered:
    power: Annotated[float, Above(0)] = 1.0

    @property
    def words(self):
        return f"in proportion to size x place^{self.power:g}"

    def counts(self, shapes, sparsity):
        sizes = [math.prod(shape) for shape in shapes]
        return apportion([n * i**self.power for i, n in enumerate(sizes, 1)], sizes, sparsity)
''',
    "schedule/halving": '''
"""Halve the fraction every so many steps."""
from typing import Annotated
from dstrun.config.option import AtLeast, option
from dstrun.schedule.times import Times

@option
class Halving(Times):
    life_steps: Annotated[int, AtLeast(1)] = 10

    def fraction_at(self, step, total):
        return self.fraction / 2 ** (step // self.life_steps) if step <= self.last(total) else 0.0
''',
    "optimizer/signs": '''
"""Step by the sign of the gradient."""
from typing import Annotated
from dstrun.config.option import Within, option
from dstrun.optimizer.rate import Rate

@option
class Signs(Rate):
    damping: Annotated[float, Within(0, 1)] = 0.0

    def build(self, parameters):
        from newcomer.optimizer.stepping import Stepping

        return Stepping(parameters, {"lr": self.lr, "damping": self.damping})
''',
    "model/pair": '''
"""Two linear layers."""
from typing import Annotated
from torch import nn
from dstrun.config.option import AtLeast, option

@option
class Pair:
    units: Annotated[int, AtLeast(1)] = 24

    def build(self, image, classes):
        size = image[0] * image[1] * image[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(size, self.units), nn.Tanh(), nn.Linear(self.units, classes))
''',
    "dataset/stripes": '''
"""Horizontal and vertical stripes."""
from typing import Annotated, ClassVar
from dstrun.config.option import Within, option
from dstrun.dataset.images import Dataset
from dstrun.system.lazy import np

@option
class Stripes(Dataset):
    image: ClassVar[tuple[int, int, int]] = (1, 6, 6)
    classes: ClassVar[int] = 2
    train_count: ClassVar[int] = 64
    test_count: ClassVar[int] = 32
    mean: ClassVar[tuple[float, ...]] = (0.5,)
    std: ClassVar[tuple[float, ...]] = (0.5,)
    flip: ClassVar[bool] = False

    noise: Annotated[float, Within(0, 1)] = 0.2

    def load(self):
        draw = np.random.default_rng(0)
        y = np.arange(96) % 2
        lines = np.broadcast_to(np.arange(6) % 2, (96, 6, 6))
        x = np.where(y[:, None, None] == 1, lines, lines.transpose(0, 2, 1))
        x = 255 * (1 - self.noise) * x + 255 * self.noise * draw.random(x.shape)
        x = x.astype(np.uint8)[:, None]
        arrays = {"train_x": x[:64], "train_y": y[:64], "test_x": x[64:], "test_y": y[64:]}
        return self.choose(arrays, f"stripes {self.noise}")
''',
    "method/halfway": (Path(__file__).parents[1] / "examples/own_parts/mine/method/halfway.py").read_text(),
}
"""The source of each option, by its group and name."""

RATE = (
    "lr: 0.01\nweight_decay: 0.0\ndecay: all\nlr_schedule: constant\nlr_milestones: []\nlr_drop: 1.0\nlr_warmup: 0.0\n"
)
TIMES = (
    "fraction: 0.2\nbegin: 0.0\nend: 0.6\nstart: interval\ninterval_steps: null\nupdates: null\n"
    "recipe_interval_steps: 1000\nrecipe_steps: 78000\n"
)
PRESET = (
    "# @package _global_\n# Paper: none: a test\ndefaults:\n  - override /prune: null\n  - override /grow: null\n"
    "  - override /schedule: null\nmethod: {_target_: newcomer.method.halfway.Halfway, at: 0.5}\n"
)
YAML = {
    "prune/oldest": "skip: 0\n",
    "subset/corner": "fall: 1.0\n",
    "allocation/tapered": "power: 1.0\n",
    "schedule/halving": TIMES + "life_steps: 10\n",
    "optimizer/signs": RATE + "damping: 0.0\n",
    "model/pair": "units: 24\n",
    "dataset/stripes": "limit: null\nvalidation: 0\nnoise: 0.2\n",
}
"""Settings of each option but the method, with their defaults."""

STEPPING = """
from torch import no_grad
from torch.optim import Optimizer

class Stepping(Optimizer):
    @no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(group["lr"] * (1 - group["damping"]) * weight.grad.sign())
"""

WRONG = {
    "prune/oldest": ("prune.skip=-1", "prune.skip=-1 must be at least 0"),
    "subset/corner": ("subset.fall=0", "subset.fall=0 must be above 0"),
    "allocation/tapered": ("allocation.power=-2", "allocation.power=-2 must be above 0"),
    "schedule/halving": ("schedule.life_steps=0", "schedule.life_steps=0 must be at least 1"),
    "optimizer/signs": ("optimizer.damping=2", "optimizer.damping=2 must be in [0, 1]"),
    "model/pair": ("model.units=0", "model.units=0 must be at least 1"),
    "dataset/stripes": ("dataset.noise=2", "dataset.noise=2 must be in [0, 1]"),
    "method/halfway": ("method.at=0", "method.at=0 must be in (0, 1]"),
}
"""A setting of each option out of its bounds, and what is said of it."""

USED = ["--config-dir", "conf", "wandb=disabled", "epochs=2", "batch_size=16", "sparsity=0.5", "model=pair"]
USED += ["dataset=stripes", "optimizer=signs", "optimizer.lr=0.01", "allocation=tapered"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every option: its file and its yaml, and no edit elsewhere."""
    root = tmp_path_factory.mktemp("parts")
    for part, source in OPTIONS.items():
        group, name = part.split("/")
        target = f"_target_: newcomer.{group}.{name}.{name.capitalize()}\n"
        for file, text in (
            (root / "newcomer" / f"{part}.py", source),
            (root / "conf" / f"{part}.yaml", target + YAML[part] if part in YAML else PRESET),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    (root / "newcomer" / "optimizer" / "stepping.py").write_text(STEPPING)
    return root


def record(folder: Path, experiment: str) -> tuple[dict, list[dict[str, str]]]:
    """Return the record of the one run of an experiment, and the rows of what its topology did."""
    (file,) = folder.glob(f"results/{experiment}/*/record.json")
    with (file.parent / "topology.csv").open() as rows:
        return json.loads(file.read_text()), list(csv.DictReader(rows))


def test_parts_of_composed_training_train_together(dstrun, folder: Path) -> None:
    parts = ["prune=oldest", "grow=gse", "subset=corner", "schedule=halving", "schedule.interval_steps=2"]
    dstrun(*USED, *parts, "experiment=together", cwd=folder)
    found, moves = record(folder, "together")
    chosen = {part.split("/")[0]: part.split("/")[1] for part in OPTIONS if part != "method/halfway"}
    assert {group: found["choices"][group] for group in chosen} == chosen
    # 8 steps, updates until 60 % of them; 864 + 48 weights, half of them by size x place.
    assert [row["step"] for row in moves if row["layer"] == "1"] == ["2", "4"]
    assert {row["layer"]: int(row["active"]) for row in moves} == {"1": 410, "3": 46}
    assert all(row["pruned"] == row["grown"] != "0" for row in moves)


def test_a_method_with_a_procedure_of_its_own_trains(
    dstrun, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dstrun(*USED, "method=halfway", "experiment=own", cwd=folder)
    found, moves = record(folder, "own")
    assert found["label"] == "halfway"
    assert [row["step"] for row in moves] == ["4", "4"]
    assert sum(int(row["active"]) for row in moves) == (864 + 48) // 2
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert main(["plan", *USED, "method=halfway", "--format", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["flops"]["train"] == found["flops"]["train"]


@pytest.mark.parametrize("part", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(
    part: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting out of its bounds; and a name that is not there, with the new one as the nearest."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    group, name = part.split("/")
    word, sentence = WRONG[part]
    assert main(["--config-dir", "conf", f"{group}={name}", word]) == 2
    assert capsys.readouterr().err == f"dstrun: {sentence}\n"
    assert main(["--config-dir", "conf", f"{group}={name[:-1]}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"(did you mean {name}?)")


def test_every_group_has_been_added_to() -> None:
    from dstrun.config.option import GROUPS

    elsewhere = {"grow", "loss"}  # test_contributing.py, test_own_parts.py
    assert {*GROUPS} == {part.split("/")[0] for part in OPTIONS} | elsewhere


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, of links, into which a file may be put; and a finished run in the current folder."""
    shutil.copytree(RUN, tmp_path / "results" / "default" / RUN.name)
    leave = shutil.ignore_patterns("conf", "sweeps", "results")
    shutil.copytree(PACKAGE, tmp_path / "copy" / "dstrun", copy_function=os.symlink, ignore=leave)
    for name in ("conf", "sweeps", "results"):
        (tmp_path / "copy" / "dstrun" / name).symlink_to(PACKAGE.parent / name)
    return tmp_path / "copy"


VERB = '''
"""``dstrun count``: how many runs there are."""

from dstrun.cli.words import found_runs, parser
from dstrun.system.safe import put

HELP = {55: ("count [RESULTS]", "how many runs there are")}


def main(words: list[str]) -> int:
    """Count runs."""
    made = parser("count", "How many runs there are.")
    put(str(len(found_runs(made.parse_intermixed_args(words).which))))
    return 0
'''


def test_a_verb_is_a_file(dstrun, copy: Path, tmp_path: Path) -> None:
    file, environment = copy / "dstrun" / "cli" / "verb" / "count.py", {"PYTHONPATH": str(copy)}
    file.write_text(VERB)
    lines = dstrun("help", "all", env=environment, fresh=True).stdout.splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("  dstrun count [RESULTS] ")]
    assert [lines[place + i].split()[1] for i in (-1, 0, 1)] == ["plot", "count", "report"]
    assert dstrun("count", env=environment, fresh=True).stdout == "1\n"
    wrong = dstrun("count", "--formt", "md", env=environment, fresh=True, check=False)
    sentence = "dstrun: --formt is not a flag here (did you mean --format?); dstrun count --help lists them\n"
    assert (wrong.returncode, wrong.stderr) == (2, sentence)
    file.unlink()
    gone = dstrun("count", env=environment, fresh=True, check=False)
    assert (gone.returncode, gone.stderr) == (
        2,
        f"dstrun: count is neither a command nor key=value: the commands are {', '.join(VERBS)}\n",
    )


FIGURE = '''
"""How many runs a method has."""

from collections import Counter

from dstrun.report.figure.canvas import finish, grid
from dstrun.report.figure.preset import Preset

CAPTION = "Runs of every method."


def draw(runs):
    """Draw a bar a method."""
    counts = Counter(run.get("label") for run in runs if run.done)
    if not counts:
        return None
    figure, (axis,) = grid(1, "runs")
    axis.bar(list(counts), list(counts.values()), label="runs")
    finish(figure, ["runs"], list(counts.values()))
    return figure


PRESET = Preset(draw, CAPTION, place=15)
'''


def test_a_figure_is_a_file(dstrun, copy: Path, tmp_path: Path) -> None:
    file, environment = copy / "dstrun" / "report" / "figure" / "kind" / "tally.py", {"PYTHONPATH": str(copy)}
    file.write_text(FIGURE)
    assert "curves, tally, sparsity," in " ".join(dstrun("plot", "--help", env=environment).stdout.split())
    done = dstrun("plot", "tally", env=environment)
    assert done.stdout == "tally.png\n"
    assert done.stderr.startswith("Runs of every method; n = ")
    assert (tmp_path / "tally.png").read_bytes().startswith(b"\x89PNG")
    dstrun("report", env=environment)
    page = (tmp_path / "report.html").read_text()
    assert page.index("Final top-1 accuracy") > page.index("Runs of every method; n = ") > 0
    wrong = dstrun("plot", "taly", env=environment, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("(did you mean tally?)\n")
    file.unlink()
    gone = dstrun("plot", "tally", env=environment, check=False)
    assert (gone.returncode, "tally is not known: choose curves, sparsity" in gone.stderr) == (2, True)


def test_every_verb_has_a_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "all"]) == 0
    named = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  dstrun ")}
    assert {*VERBS} <= named
