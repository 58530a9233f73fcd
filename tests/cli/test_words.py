"""Every word is obeyed, or refused in one sentence before anything is written or started."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstrun.cli import main as cli
from dstrun.cli.complete import candidates
from dstrun.cli.help import GROUP, SWEEPS, defaults, of
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.config.schema import DEFAULTS
from dstrun.launcher import sweep
from dstrun.record.folder import run_id
from dstrun.system.trouble import ConfigError

D = "model=mlp dataset=digits wandb=disabled"

OWN = {
    "nets.py": "class Tiny:\n  def build(self, image, classes): ...\nclass Bare:\n  pass\n",
    "synt.py": "class Net:\n  def build(:\n",
    "raises.py": "raise KeyError('x')\n",
    "sets.py": "from dstrun.dataset.images import Dataset\nfrom dstrun.config.option import option\n"
    "@option\nclass Rand(Dataset):\n  def load(self, cache=None): ...\n",
    "conf/model/tiny.yaml": "_target_: nets.Tiny\n",
    "conf/model/mine/net.yaml": "_target_: dstrun.model.mlp.MLP\nhidden: [4]\nwidth: 1.0\n",
    "conf/model/bare.yaml": "_target_: nets.Bare\n",
    "conf/model/torch.yaml": "_target_: torch.nn.Linear\n",
    "conf/model/none.yaml": "hidden: 3\n",
    "conf/model/list.yaml": "- a\n",
    "conf/model/empty.yaml": "",
    "conf/model/broken.yaml": "a: [1,\n",
    "conf/model/latin.yaml": "_target_: nets.T\xe9ny\n".encode("latin-1"),
    "conf/model/typo.yaml": "_target_: dstrun.model.mlp.MLQ\n",
    "conf/model/nomod.yaml": "_target_: nosuch.Net\n",
    "conf/model/deep.yaml": "_target_: nets.deep.Net\n",
    "pack/nett.py": "",
    "conf/model/near.yaml": "_target_: pack.net.Net\n",
    "conf/model/small.yaml": "_target_: nets.Tyny\n",
    "conf/model/plain.yaml": "_target_: plain.Net\n",
    "plain.py": "from torch import nn\nclass Net(nn.Module):\n  def __init__(self, width=3): ...\n",
    "conf/model/bad.yaml": "_target_: 3\n",
    "conf/model/synt.yaml": "_target_: synt.Net\n",
    "conf/model/key.yaml": "_target_: dstrun.model.mlp.MLP\nhiden: [4]\n",
    "conf/model/loop.yaml": "_target_: dstrun.model.mlp.MLP\nhidden: &a [*a]\n",
    "conf/grow/bare.yaml": "_target_: nets.Bare\n",
    "conf/grow/raises.yaml": "_target_: raises.Net\n",
    "conf/grow/glob.yaml": "# @package _global_\nsparisty: 0.2\n",
    "conf/optimizer/foreign.yaml": "_target_: torch.optim.Adam\nlr: 0.1\n",
    "conf/optimizer/key.yaml": "_target_: dstrun.optimizer.sgd.SGD\nmomentun: 0.9\n",
    "conf/dataset/rand.yaml": "_target_: sets.Rand\n",
    "conf/dataset/number.yaml": "3\n",
    "conf/params.yaml": "defaults: [config, _self_]\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {model: mlp, sparisty: '0.5,0.9'}}}\n",
    "conf/top.yaml": "defaults: [config, _self_]\nsparisty: 0.3\nhydra: {mode: MULTIRUN}\n",
    "conf/rundir.yaml": "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, run: {dir: x}}\n",
    "conf/logging.yaml": "defaults: [config, override hydra/job_logging: default, _self_]\nhydra: {mode: MULTIRUN}\n",
    "conf/sweeper.yaml": "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {parms: {seed: 0}}}\n",
    "conf/path.yaml": "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, searchpath: ['file://nosuch']}\n",
    "conf/recipe_.yaml": "defaults: [config, _self_]\nrecipe: {sgdd: {lr: 1}}\nhydra: {mode: MULTIRUN}\n",
    "conf/brokenfile.yaml": "a: [\n",
    "conf/listfile.yaml": "- a\n",
    "conf/sweepfile.yaml": "defaults: [config, override model: mlp, override dataset: digits, _self_]\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
    "conf/packages.yaml": "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://antigravity']}\n",
    "conf/gridless.yaml": "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {grids: [5]}}\n",
    "conf/launcherkey.yaml": "defaults: [config, {override model: mlp}, {override dataset: digits}, _self_]\n"
    "wandb: disabled\nhydra: {mode: MULTIRUN, launcher: {workrs: 2}}\n",
    "conf/model/open.yaml": "_target_: nets.Tiny\nx: ???\n",
    "other/model/tiny.yaml": "_target_: nets.Tiny\nx: 3\n",
    "hides/model/mlp.yaml": "_target_: dstrun.model.mlp.MLP\nhidden: [4]\n",
    "file": "x",
}

SPARISTY = "sparisty is no setting here (did you mean sparsity?)"

REFUSED = {
    # keys that nobody reads
    f"{D} ++sparisty=0.5": SPARISTY,
    f"-m {D} ++sparisty=0.5,0.95": SPARISTY,
    f"plan {D} +sparisty=0.5": SPARISTY,
    f"{D} +foo.bar=1": "foo is no setting here",
    f"{D} +model.hiden=[1]": "model.hiden is no setting of this model (did you mean hidden?)",
    f"{D} ++optimizer.momentun=1": "optimizer.momentun is no setting of this optimizer (did you mean momentum?)",
    f"{D} +checkpoint.every_minute=1": "checkpoint.every_minute is no setting here (did you mean checkpoint.every_min",
    f"{D} ++optimizer._convert_=none": "optimizer._convert_ is not allowed",
    f"{D} +grow.subset.foo=1": "grow.subset has no _target_",
    f"{D} +recipe.sgd.foo=1": "recipe.sgd.foo is no setting of this optimizer",
    f"{D} +recipe.adam.lr=1": "+recipe.adam.lr=1 does nothing with optimizer=sgd",
    "--config-dir conf -cn params": SPARISTY,
    "--config-dir conf -cn top": SPARISTY,
    "--config-dir conf -cn sweeper": "hydra.sweeper.parms is no setting here (did you mean hydra.sweeper.params?)",
    "--config-dir conf -cn recipe_": "recipe.sgdd is no optimizer (did you mean sgd?)",
    f"--config-dir conf grow=glob {D}": SPARISTY,
    "--config-dir conf model=key dataset=digits": "model.hiden is no setting of this model (did you mean hidden?)",
    f"--config-dir conf {D} optimizer=key": "optimizer.momentun is no setting of this optimizer",
    # Hydra's flags and settings
    f"{D} --config-path x": "--config-path is not taken: --config-dir",
    f"{D} --experimental-rerun x": "--experimental-rerun is not taken",
    f"{D} --resolve": "--resolve goes with --cfg job",
    f"{D} --package model": "--package goes with --cfg job",
    f"{D} --cfg job --package modle": "--package modle is no part of the configuration",
    "model=mpl --cfg job": "(did you mean mlp?)",
    "--cfg jb": "--cfg jb is not known: choose job, hydra, all (did you mean job?)",
    "--info foo": "--info foo is not known",
    f"-m -r {D}": "--run and --multirun exclude each other",
    "--mutlirun": "--mutlirun is no flag here (did you mean --multirun?)",
    "-cn a -cn b": "-cn is given twice",
    "--config-dir conf -cn sweepfile --run": "--run makes no sense with -cn sweepfile",
    f"{D} hydra.run.dir=x": "hydra.run.dir does nothing here: results= and experiment=",
    f"{D} hydra.sweep.subdir=x": "hydra.sweep.subdir does nothing here",
    f"-m {D} hydra.sweep.dir=x": "hydra.sweep.dir does nothing here",
    f"-m {D} +hydra.job.env_set.X=1": "hydra.job.env_set.X does nothing here: set the variable in the shell",
    f"{D} hydra.job.chdir=true": "hydra.job.chdir does nothing here",
    f"{D} hydra.output_subdir=x": "hydra.output_subdir does nothing here",
    f"{D} hydra.verbose=true": "hydra.verbose does nothing here",
    f"{D} hydra/job_logging=default": "hydra/job_logging does nothing here",
    f"-m {D} +hydra.callbacks.x._target_=foo.Bar": "hydra.callbacks.x._target_ does nothing here",
    f"{D} hydra.mode=MULTIRUN": "hydra.mode does nothing here: -m sweeps",
    f"{D} hydra=foo": "hydra does nothing here",
    f"{D} hydra/launcher=slurm": "hydra/launcher acts on sweeps alone: put -m before it",
    f"-m {D} hydra.launcher=foo": "hydra/launcher=NAME chooses one",
    f"{D} hydra.searchpath=[file://nosuch]": "nosuch is not there",
    f"{D} hydra.searchpath=[pkg://antigravity]": "hydra.searchpath=[pkg://antigravity] must be a list of folders",
    f"{D} hydra.searchpath=[foo://x]": "must be a list of folders",
    f"{D} hydra.searchpath=conf": "hydra.searchpath=conf must be a list of folders",
    f"{D} hydra.searchpath=[5]": "hydra.searchpath=[5] must be a list of folders",
    f"{D} hydra.searchpath=null": "hydra.searchpath=null must be a list of folders",
    f"{D} +hydra.searchpath=[conf]": "write hydra.searchpath=[DIR]",
    f"-m {D} ++hydra.launcher.foo=1": "hydra.launcher.foo is no setting of this launcher",
    f"-m {D} ++hydra.sweeper.foo=1": "hydra.sweeper.foo is no setting of this sweeper",
    f"plan {D} hydra.launcher.workers=2": "hydra.launcher.workers acts on sweeps alone",
    f"{D} --cfg all --resolve": "--resolve goes with --cfg job",
    f"-m {D} seed=1,2 --cfg job --package modle": "--package modle is no part of the configuration",
    "--hlep": "--hlep is no flag here (did you mean --help?)",
    "-sc query=bash": "it sets COMP_LINE",
    "--config-dir conf -cn packages": "hydra.searchpath=[pkg://antigravity] must be a list of folders",
    "--config-dir conf -cn gridless": "hydra.sweeper.grids holds 5, and no settings",
    "--config-dir conf -cn launcherkey": "hydra.launcher.workrs is no setting of this launcher",
    # values that are left open, and settings that are unset
    f"{D} seed=???": "seed has no value (???): set it",
    f"plan {D} grow.gamma=???": "grow.gamma has no value (???): set it",
    "--config-dir conf -m model=open dataset=digits": "model.x has no value (???): set it",
    f"{D} ~optimizer": "optimizer has no value (???): set it",
    f"{D} ~optimizer recipe.sgd.lr=1": "optimizer=null is not known: choose",
    f"plan {D} ~": "'~' names no setting",
    f"-m {D} method=glob(nosuch*)": "method has no value",
    f"{D} grow.gamma={'[' * 2000}{']' * 2000}": "cannot be read as key=value",
    "-m model=resnet20 dataset=cifar10 dataset.root=~nobodyhere/x": "the home of ~nobodyhere is not known",
    "--config-dir conf -cn rundir": "hydra.run.dir in a file does nothing here",
    "--config-dir conf -cn logging": "hydra.job_logging in a file does nothing here",
    "--config-dir conf -cn path": "hydra.searchpath: nosuch is not there",
    f"-cn= {D}": "-cn is empty",
    "-sc foo": "-sc needs one of install=SHELL",
    # folders and files of one's own
    "--config-dir nosuch model=tiny": "--config-dir nosuch is not there",
    "--config-dir file model=tiny": "--config-dir file is no folder",
    f"--config-dir= {D}": "--config-dir is empty",
    "-cd conf -cd other model=tiny": "conf/model/tiny.yaml is in other too",
    "--config-dir hides model=mlp": "hides/model/mlp.yaml has the name of a file that is shipped",
    "--config-dir conf model=bare dataset=digits": "bare.yaml: nets.Bare is no torch.nn.Module and has no build",
    "--config-dir conf model=torch dataset=digits": "torch.nn.Linear is not trusted",
    "--config-dir conf model=none dataset=digits": "model=none has no _target_",
    "--config-dir conf model=list dataset=digits": "model=list must hold settings",
    "--config-dir conf model=empty dataset=digits": "model=empty has no _target_",
    "--config-dir conf model=broken dataset=digits": "conf/model/broken.yaml line 2 is no YAML",
    "--config-dir conf model=latin dataset=digits": "conf/model/latin.yaml is no text in UTF-8",
    "--config-dir conf -m model=typo,mlp dataset=digits": "is no model of this program (did you mean MLP?)",
    "--config-dir conf model=nomod dataset=digits": "nosuch is neither in a folder of yours (the current one",
    "--config-dir conf model=deep dataset=digits": "model._target_=nets.deep.Net: there is no nets/deep.py",
    "--config-dir conf model=near dataset=digits": "there is no pack/net.py (did you mean nett?)",
    "--config-dir conf model=small dataset=digits": "written in nets.py (did you mean Tiny?)",
    "--config-dir conf model=plain dataset=digits model.widht=1": "no setting here (did you mean +model.width?)",
    "--config-dir conf model=plain dataset=digits model.width=1": "in the yaml of model: write +model.width=1",
    "model=synt dataset=digits": "model=synt is not known: add --config-dir conf, which has it",
    "--config-dir conf model=bad dataset=digits": "model._target_=3 must be MODULE.CLASS",
    "--config-dir conf model=synt dataset=digits": "model._target_=synt.Net: synt.py, line 2: invalid syntax",
    "--config-dir conf model=loop dataset=digits": "nested without end",
    f"--config-dir conf {D} grow=bare": "nets.Bare lacks candidates, score",
    f"--config-dir conf {D} grow=raises": "raises.Net is no class written in raises.py",
    "--config-dir conf model=mlp dataset=rand": "sets.Rand lacks image, classes, ",
    "--config-dir conf model=mlp dataset=number": "dataset/number.yaml must hold settings",
    "--config-dir conf -cn brokenfile": "conf/brokenfile.yaml line 2 is no YAML",
    "--config-dir conf -cn listfile": "-cn listfile: the file holds ['a']",
    # a sweep is checked whole
    f"-m {D} dataset.limit=200,100 seed=0,1": "batch_size=128 must be at most 100",
    "-m model=mlp dataset=digits wandb=disabled,online": "wandb=online finds no API key",
    "-m model=resnet20 dataset=cifar10 dataset.root=nosuch wandb=disabled": "dataset.root=nosuch is no folder",
    "-m model=resnet20 dataset=cifar10 dataset.root=conf wandb=disabled": "conf holds no cifar10",
    "-m model=resnet20 dataset=imagenet wandb=disabled": "data holds no images",
    f"-m {D} results=ok,file": "results=file cannot be written: Not a directory",
    f"-m {D} device=cpu,mps": "device=mps is not available",
    # what is called otherwise elsewhere, or said to other programs so
    "lr=0.1": "lr is no setting here (did you mean optimizer.lr?); dstrun help settings lists them",
    "++lr=0.1": "(did you mean optimizer.lr?)",
    "-m lr=0.1,0.2": "(did you mean optimizer.lr?)",
    "wd=0.1": "(did you mean optimizer.weight_decay?)",
    "momentum=0.5": "(did you mean optimizer.momentum?)",
    "batch=32": "(did you mean batch_size?)",
    "bs=32": "(did you mean batch_size?)",
    "epoch=3": "(did you mean epochs?)",
    "gpu=0": "(did you mean device=cuda?)",
    "cuda=true": "(did you mean device=cuda?)",
    "density=0.1": "(did you mean sparsity=0.9?)",
    "device=gpu": "(did you mean cuda?)",
    "sparsity=98": "must lie in [0, 1) (did you mean 0.98?)",
    "sparsity=98%": "must be a number (did you mean 0.98?)",
    "schedule.fraction=30": "must lie in (0, 1] (did you mean 0.3?)",
    "grow=rigl": "choose gradient, gse, random (did you mean method=rigl?)",
    "grow=set": "choose gradient, gse, random (did you mean method=set?)",
    "dataset=CIFAR10": "(did you mean cifar10?)",
    "dataset=mnist": "(did you mean dataset=torchvision dataset.name=MNIST?)",
    "model=vgg": "(did you mean vgg16 or vgg16_small or vgg19?)",
    "resnet56": "(did you mean model=resnet56?)",
    "model": "neither a verb nor key=value: write model=NAME, of mlp, mobilenet_v1, resnet110, resnet18, ...",
    "model = resnet56": "model = resnet56 has spaces around =: write model=resnet56",
    "model= resnet56 seed=1": "write model=resnet56",
    "seed=1 model =resnet56": "write model=resnet56",
    "train": "words such as model=resnet56 train, without a verb",
    "run": "words such as model=resnet56 train, without a verb",
    "resume": "the same words again resume a run",
    "list": "dstrun methods lists methods, dstrun status runs",
    "frobnicate": "the verbs are bench, diff, doctor, eval, export, methods, migrate, plan, plot, report, show, status",
    "--lr 0.1": "--lr is no flag here (did you mean optimizer.lr=VALUE?)",
    "--epochs=10": "--epochs is no flag here (did you mean epochs=10?)",
    "-v": "(did you mean --version?)",
    "table --publised": "(did you mean --published?)",
    "--publised table": "(did you mean --published?); dstrun table --help lists them",
    "plot": "plot needs KIND, one of curves, ",
    "eval": "eval needs RUN; dstrun eval --help says more",
    "help frobnicate": "frobnicate is no topic of help: choose a verb, a group, settings, sweeps, all",
    "help tabel": "(did you mean table?)",
    "help grow=rigl": "(did you mean method=rigl?)",
    # flags stand anywhere
    "--config-dir conf": "no word says what to train: name it, as model=resnet56, or say --run",
    "--config-dir conf plan model=mpl": "model=mpl is not known",
    "plan --config-dir conf model=tiny dataset=digit": "dataset=digit is not known",
    "model=tiny --config-dir conf dataset=digit": "dataset=digit is not known",
    "--config-dir conf eval nosuch": "nosuch is no run's folder",
    "--config-dir conf weights nosuch --out x.gif": "--out x.gif must end in",
    "--out x.gif weights nosuch": "--out x.gif must end in",
    # values
    f"{D} results=~nobodyhere/x": "the home of ~nobodyhere is not known",
    f"{D} results=": "results= must be a folder",
    f"{D} experiment=a/.b": "experiment=a/.b is hidden",
    f"{D} experiment={'x' * 300}": "is 300 bytes long",
    f"{D} experiment=${{model}}": "must be a name",
    f"{D} seed=${{seed}}": "it stands for itself",
    f"{D} seed=${{oc.env:NOSUCH}}": "NOSUCH",
    f"{D} strict=3": "strict=3 must be true or false",
    f"{D} seed=null": "seed=null must be a whole number",
    f"{D} threads=0.5": "threads=0.5 must be a whole number",
    f"{D} model.hidden=abc": "model.hidden=abc must be a list",
    f"{D} =3": "'=3' names no setting",
    # verbs
    "-m table": "-m is no flag here; dstrun table --help lists them",
    f"{D} table": "table is a verb and comes first",
    "helpp": "(did you mean help?)",
    "table --formt md": "--formt is no flag here (did you mean --format?); dstrun table --help lists them",
    "table --format md --format csv": "--format is given twice",
    "table --preset acuracy": "--preset acuracy is not known: choose accuracy, memory, flops, cost (did you mean acc",
    "table wher=a": "(did you mean where?)",
    "table ~nobodyhere": "the home of ~nobodyhere is not known",
    "plot pie": "pie is not known: choose curves, ",
    "plot curves --out ~nobodyhere/x.png": "the home of ~nobodyhere is not known",
    "bench kernl": "(did you mean kernel?)",
    "methods foo": "foo is not taken here",
    "plan --config-dir nosuch": "--config-dir nosuch is not there",
}


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
        ("help dataset=torchvision", "dataset.name=MNIST"),
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
}


@pytest.mark.parametrize("line", COMPLETED)
def test_the_shell_completes(line: str) -> None:
    *before, word = line.split(" ")
    assert candidates(before, word) == COMPLETED[line]


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
        (MemoryError(), 1, "dstrun: out of memory: free some, or take a smaller model or batch_size\n"),
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
    assert "this is a fault of dstrun" in said.splitlines()[-1]


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
