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

MAY_IMPORT: dict[str, set[str]] = {
    "system": set(),
    "layer": {"system"},
    "config": {"layer", "system"},
    "model": {"config", "system"},
    "dataset": {"config", "system"},
    "optimizer": {"config", "system"},
    "loss": {"config", "system"},
    "schedule": {"config", "system"},
    "allocation": {"config", "system"},
    "subset": {"config", "layer", "system"},
    "grow": {"config", "layer", "subset", "system"},
    "prune": {"config", "layer"},
    "method": {"allocation", "config", "grow", "layer", "model", "prune", "schedule", "system"},
    "backend": {"layer", "system"},
    "storage": {"backend", "layer", "method", "system"},
    "account": {"allocation", "layer", "method"},
    "record": {"config", "system"},
    "tracker": {"config", "record", "system"},
    "train": {"account", "dataset", "layer", "method", "optimizer", "record", "storage", "system", "tracker"},
    "report": {"allocation", "config", "layer", "record", "system"},
    "run": {
        *("account", "allocation", "backend", "config", "dataset", "layer", "loss", "method", "model", "optimizer"),
        *("record", "report", "schedule", "storage", "system", "tracker", "train"),
    },
    "bench": {"account", "allocation", "backend", "config", "dataset", "layer", "report", "run", "system", "train"},
    "launcher": {"config", "record", "run", "system", "train"},
    "cli": {"account", "config", "launcher", "layer", "report", "system"},
    "library": {
        *("allocation", "backend", "cli", "config", "layer", "method", "record", "report", "run", "system"),
    },
    "torture": {"cli", "config", "launcher", "record", "system", "train"},
    "__main__": {"cli", "system"},
    "__init__": {"allocation", "backend", "config", "grow", "layer", "library", "optimizer", "run", "subset", "system"},
}
"""Which rooms a room may import when it is loaded, besides itself: only rooms that stand above it, so in no circle."""

THIRD_PARTY = {
    "hydra": {"config"},
    "omegaconf": {"cli", "config", "run"},
    "matplotlib": {"library", "report"},
    "rich": {"report"},
    "wandb": set(),
    "torchvision": set(),
    "pandas": {"library"},
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


def test_rooms_stand_in_an_order() -> None:
    above: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{name} may import {allowed - above}, which stand below it"
        above.add(name)
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()} | {
        "__main__",
        "__init__",
    } == above


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)]
    for name in imports(ast.parse(path.read_text())):
        head, _, rest = name.partition(".")
        if head == "dstrun" and rest:
            other = rest.split(".")[0]
            assert other in allowed | {room(path), "__version__"}, f"{path.name} imports {name}"
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
    if room(path) not in ("cli", "run") and path.name != "progress.py":
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


def loaded(code: str, names: tuple[str, ...] = HEAVY) -> list[str]:
    """Run code in a fresh interpreter and name those of some libraries, the heavy ones, that it loaded."""
    script = f"import sys\n{code}\nprint([m for m in {names!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


LIGHT = [
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
    ["weights", "--help"],
    ["weights", "nothing", "--out", "net.pt"],
    ["eval", "nothing", "--split", "val"],
    ["model=mlp", "dataset=digits", "init=nothing"],
    ["doctor", "--help"],
    ["show", "nothing"],
    ["diff", "nothing", "nothing"],
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
]
"""Commands that need none of these."""


@pytest.fixture(scope="module")
def loaded_by(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each light command loads that those before it have not: all in one interpreter, which starts once."""
    code = f"""
import os
from dstrun.cli.main import main
os.chdir({str(tmp_path_factory.mktemp("light"))!r})
found = {{}}
for words in {LIGHT!r}:
    before = set(sys.modules)
    try:
        main(words)
    except SystemExit:
        pass
    found[" ".join(words)] = [name for name in {HEAVY!r} if name in sys.modules and name not in before]
print(found)
"""
    done = subprocess.run([sys.executable, "-c", f"import sys{code}"], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_load_no_heavy_library(words: list[str], loaded_by: dict[str, list[str]]) -> None:
    assert loaded_by[" ".join(words)] == []


def test_option_modules_load_no_torch() -> None:
    """So that a whole configuration is checked before torch or numpy is imported; networks alone are exempt."""
    targets = {yaml.safe_load(p.read_text()).get("_target_") for p in ROOT.glob("conf/*/*.yaml")} - {None}
    modules = sorted({t.rpartition(".")[0] for t in targets if not t.startswith("dstrun.model.")})
    assert loaded("\n".join(f"import {module}" for module in modules), (*HEAVY, "numpy")) == []
