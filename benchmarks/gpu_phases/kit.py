"""What a bare machine lacks: pure Python wheels from ``.gpu/wheels``, links beside the package, an environment.

Imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
KIT = Path(os.environ.get("DSTRUN_GPU_KIT") or ROOT / ".gpu")
CACHE = ROOT / ".gpu-cache"
"""Beside the kit, which is sent as it is."""
MARK = "DSTRUN_GPU_SITE"
"""Set where this process was started again with what it lacked."""
NEEDED = (
    "torch", "torchvision", "hydra", "omegaconf", "antlr4", "submitit", "cloudpickle", "yaml", "numpy", "numba",
    "jinja2", "PIL", "pyarrow", "rich", "sklearn", "matplotlib",
)  # fmt: skip
BESIDE = ("conf", "sweeps", "results")
"""Folders of the checkout that are packages of ``dstrun``."""


def ready() -> None:
    """Start this script again with wheels unpacked and everything set, unless that was done.

    Raises:
        SystemExit: with code 3, a library is neither here nor in the kit.
    """
    link()
    if MARK in os.environ:
        return
    site = Path(tempfile.mkdtemp(prefix="dstrun-gpu-"))
    for wheel in sorted((KIT / "wheels").glob("*.whl")):
        if missing(wheel.name):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    sys.path.insert(0, str(site))
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"missing: {', '.join(absent)}; make gpu-kit puts pure Python ones into .gpu/wheels", file=sys.stderr)
        raise SystemExit(3)
    os.environ.update(environment(site))
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ)


def clear() -> None:
    """Remove the wheels that were unpacked."""
    shutil.rmtree(os.environ[MARK], ignore_errors=True)


def missing(wheel: str) -> bool:
    """Return whether what a wheel holds cannot be imported here."""
    name = wheel.split("-")[0]
    modules = {"hydra_core": "hydra", "antlr4_python3_runtime": "antlr4"}
    if name == "hydra_submitit_launcher":
        try:
            return importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None
        except ModuleNotFoundError:
            return True
    return importlib.util.find_spec(modules.get(name, name)) is None


def environment(site: Path) -> dict[str, str]:
    """Return what the script and its children are started with."""
    ours = [str(site), str(ROOT), str(ROOT / "benchmarks")]
    found = {
        MARK: str(site),
        "PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "DSTRUN_CACHE": str(CACHE / "images"),
        "NUMBA_CACHE_DIR": str(CACHE / "numba"),
    }
    kept = ("CUBLAS_WORKSPACE_CONFIG", "DSTRUN_CACHE", "NUMBA_CACHE_DIR")
    found |= {name: os.environ[name] for name in kept if name in os.environ}
    if commit := os.environ.get("DSTRUN_COMMIT") or read(KIT / "commit"):
        found["DSTRUN_COMMIT"] = commit
    return found


def read(path: Path) -> str:
    """Return the text of a small file; empty where there is none."""
    return path.read_text().strip() if path.is_file() else ""


def link() -> None:
    """Make the packages that stand beside ``dstrun`` parts of it, in a checkout that is not installed."""
    sys.path.insert(0, str(ROOT))
    for name in BESIDE:
        spec = importlib.util.find_spec(f"dstrun.{name}")
        places = [Path(place).resolve() for place in spec.submodule_search_locations or ()] if spec else []
        if ROOT / name not in places and not (ROOT / "dstrun" / name).exists():
            (ROOT / "dstrun" / name).symlink_to(f"../{name}")
    sys.path.remove(str(ROOT))
