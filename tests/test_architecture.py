"""The house holds: who may import whom, what stays light, what has no place."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dstrun"
FILES = sorted(PACKAGE.rglob("*.py"))

LIGHT = {
    "option", "budget", "stream", "progress", "heap", "ranks", "trouble", "process", "output", "trust", "bounded",
    "safe", "home", "",
}  # fmt: skip
MAY_IMPORT = {
    "option": set(),
    "budget": set(),
    "stream": set(),
    "heap": set(),
    "ranks": set(),
    "compiled": set(),
    "trouble": set(),
    "process": set(),
    "output": set(),
    "trust": set(),
    "bounded": set(),
    "safe": set(),
    "home": set(),
    "progress": set(),
    "topology": set(),
    "transfer": set(),
    "geometry": {"transfer"},
    "initial": {"layer", "topology"},
    "attention": set(),
    "selection": {"transfer"},
    "exploration": {"geometry", "selection"},
    "subset": {"compiled", "exploration", "selection", "topology", "transfer"},
    "grow": {"exploration", "subset"},
    "layer": {"exploration", "geometry", "grow", "topology"},
    "prune": {"layer"},
    "schedule": set(),
    "allocation": set(),
    "optimizer": set(),
    "method": {"exploration", "grow", "layer", "selection", "topology", "transfer"},
    "backend": {"compiled", "exploration", "geometry", "grow", "initial", "layer", "topology", "transfer"},
    "storage": {"backend", "compiled", "layer", "method"},
    "model": set(),
    "dataset": set(),
    "account": {"geometry", "grow", "layer", "method"},
    "record": {"identity", "method", "upgrade"},
    "report": {"identity", "record", "upgrade"},
    "train": {"account", "dataset", "layer", "method", "optimizer", "record", "storage", "transfer"},
    "schema": set(),
    "identity": {"schema"},
    "upgrade": {"identity"},
    "flags": set(),
    "honoured": set(),
    "own": set(),
    "contract": {"identity"},
    "check": {"config", "schema"},
    "grid": set(),
    "override": {"grid", "schema"},
    "diagnose": {"override", "own", "schema"},
    "interpolation": {"diagnose", "own"},
    "source": {"diagnose", "interpolation", "override", "own"},
    "config": {
        *("check", "contract", "diagnose", "grid", "honoured", "identity"),
        *("interpolation", "override", "own", "schema", "source"),
    },
    "ready": {"config"},
    "launcher": {"config", "record", "run", "train"},
    "bench": None,
    "torture": {"cli", "config", "flags", "override", "launcher", "record", "run", "train"},
    "network": {"account", "allocation", "attention", "config", "layer", "storage"},
    "help": {"grid", "schema"},
    "doctor": {"report"},
    "methods": {"account", "config", "help", "report"},
    "introduce": None,
    "assemble": None,
    "run": None,
    "plan": None,
    "predict": None,
    "fitting": None,
    "hours": None,
    "start": {"config", "launcher"},
    "sync": {"record", "report"},
    "migrate": {"identity", "record", "report"},
    "verb": {"flags", "report", "start"},
    "cli": {"flags", "start"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Which rooms a room may import when it is loaded (itself and ``LIGHT`` always); ``None``: every one."""

THIRD_PARTY = {
    "hydra": {"config", "diagnose", "override", "run", "source"},
    "omegaconf": {"config", "diagnose", "interpolation", "run", "source", "start"},
    "matplotlib": {"report"},
    "wandb": set(),
    "torchvision": set(),
    "pandas": set(),
}
"""Which rooms may import a heavy library when they are loaded."""


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> set[str]:
    """Name the modules imported at load time, those for type checkers included."""
    found: set[str] = set()
    for node in ast.walk(ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)], [])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)]
    for name in imports(ast.parse(path.read_text())):
        head, _, rest = name.partition(".")
        if head == "dstrun" and allowed is not None and rest:
            other = rest.split(".")[0]
            assert other in allowed | LIGHT | {room(path), "__version__"}, f"{path.name} imports {name}"
        if head in THIRD_PARTY:
            assert room(path) in THIRD_PARTY[head], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_out_of_place(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert path.stem not in ("utils", "helpers", "misc", "common")
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "cuda"]
    if room(path) not in ("cli", "verb", "run", "progress"):
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if name.startswith("Base") or name.endswith("Manager")]


def test_every_option_has_a_module_of_its_name_space() -> None:
    """``conf/grow/gse.yaml`` points into ``dstrun/grow/``, or is a preset that composes other options."""
    for path in ROOT.glob("conf/*/*.yaml"):
        group = path.parent.name
        target = yaml.safe_load(path.read_text()).get("_target_")
        assert group in ("method", "recipe", "protocol") or target.startswith(f"dstrun.{group}.")


def test_wheel_ships_every_package_and_config_group() -> None:
    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    code = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "conf").rglob("*.yaml")}
    conf = {".".join(["dstrun", *part.parts]) for folder in folders for part in (folder, *folder.parents) if part.name}
    plugins = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("hydra_plugins/*/__init__.py")}
    assert packages == code | conf | plugins | {"dstrun.sweeps", "dstrun.results"}


HEAVY = ("torch", "torchvision", "matplotlib", "pandas", "wandb", "sklearn", "pyarrow", "numba")


def loaded(code: str) -> list[str]:
    """Run code in a fresh interpreter and name the heavy libraries it loaded."""
    script = f"import sys\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["status", "."],
        ["table", "."],
        ["methods"],
        ["report", "--help"],
        ["export", "--help"],
        ["sync", ".", "--dry-run"],
        ["migrate", ".", "--dry-run"],
        ["plan", "--help"],
        ["doctor", "--help"],
        ["bench", "kernel", "--help"],
        ["torture", "--help"],
        ["bench", "kernel", "--layers", "R56"],
        ["sparsty=0.9"],
        ["grow.gamma=-1"],
        ["--cfg", "job"],
        ["-m", "--cfg", "job", "seed=0,1"],
        ["model=mlp", "--info", "defaults"],
        ["-m", "dataset=digits", "model=mlp", "wandb=disabled", "results=/proc/nowhere"],
        ["-sc", "install=bash"],
    ],
    ids=" ".join,
)
def test_light_commands_load_no_heavy_library(words: list[str], tmp_path: Path) -> None:
    code = f"import os\nfrom dstrun.cli import main\nos.chdir({str(tmp_path)!r})\n"
    code += f"try:\n main({words!r})\nexcept SystemExit:\n pass"
    assert loaded(code) == []


def test_option_modules_load_no_torch() -> None:
    """So that a whole configuration is checked before torch is imported; networks alone are exempt."""
    targets = {yaml.safe_load(p.read_text()).get("_target_") for p in ROOT.glob("conf/*/*.yaml")} - {None}
    modules = sorted({t.rpartition(".")[0] for t in targets if not t.startswith("dstrun.model.")})
    assert loaded("\n".join(f"import {module}" for module in modules)) == []
