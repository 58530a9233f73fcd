"""What a configuration may call: options of this program, and classes the user trusts. No torch, no Hydra.

Names are looked up in source files: nothing is imported before it has been allowed.
"""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dstrun.config.option import GROUPS, nearest
from dstrun.system.trouble import ConfigError, why

OURS = "dstrun."
PACKAGE = Path(__file__).parents[1]
SPECIAL = ("_args_", "_partial_", "_convert_", "_recursive_")
"""Words of Hydra's that say how to call; an option is built from its settings alone."""
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.", "optuna.samplers.")
"""What Hydra may build for itself: launchers and sweepers, and the samplers of one of them."""
LIBRARY = {
    "model": ("torchvision.models",),
    "optimizer": ("torch.optim",),
    "loss": ("torch.nn",),
    "dataset": ("torchvision.datasets", "torchvision.transforms", "torchvision.transforms.v2"),
}
"""By group, the modules of libraries that dstrun needs anyway of which any name may be called; of losses, ``*Loss``."""
PLAIN = (*LIBRARY, "dataset.augment")
"""Where a function may be named, too."""
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
LOGGING = ("logging.", "colorlog.", "rich.logging.")


def check(config: Mapping[str, Any], trusted: Collection[str] = (), directories: Sequence[str] = ()) -> None:
    """Check that a configuration names nothing to call but options and what is trusted.

    Args:
        config: of a run, resolved.
        trusted: top-level packages that the user trusts.
        directories: folders of the user's own options.

    Raises:
        ConfigError: the first name that may not be called.
    """
    for key, value in config.items():
        group = key if key in GROUPS else None
        for path, node in _nodes(value, key):
            if found := [word for word in SPECIAL if word in node]:
                raise ConfigError(f"{path}.{found[0]} is not allowed: an option is built from its settings alone")
            if "_target_" in node:
                _allowed(path, node["_target_"], group, trusted, directories)


def check_hydra(config: Any, trusted: Collection[str] = (), directories: Sequence[str] = ()) -> None:
    """Check the same of Hydra's own settings, whose launchers, callbacks and loggers it would build.

    Raises:
        ConfigError: the first name that may not be called.
    """
    for path, node in _nodes(config, "hydra"):
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target.startswith(PLUGINS)):
            _allowed(path, target, None, trusted, directories)
        if "_logging" not in path:
            continue
        if "()" in node:
            raise ConfigError(f"{path}.() is not allowed: logging may only use the classes of {LOGGING[0]}*")
        for key, value in node.items():
            for text in value if isinstance(value, list) else [value]:
                odd = isinstance(text, str) and text.startswith(("ext://", "cfg://")) and text not in STREAMS
                if odd or (key == "class" and not str(text).startswith(LOGGING)):
                    raise ConfigError(f"{path}.{key}={text} is not allowed: logging may only use {LOGGING[0]}*")


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping by its dotted name, those in lists too."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from _nodes(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _nodes(value, f"{path}.{number}")


def _allowed(path: str, target: Any, group: str | None, trusted: Collection[str], directories: Sequence[str]) -> None:
    said = f"{path}._target_={target}"
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise ConfigError(f"{said} must be MODULE.CLASS")
    module, _, name = target.rpartition(".")
    top = module.partition(".")[0]
    if top == "dstrun":
        package = module.split(".")[1] if module.count(".") else ""
        outer = path == group
        if package not in ((group,) if outer else GROUPS) or not is_option(target):
            kind = f"{group} option" if outer and group else "option"
            file = _file(module)
            known = [one for one in (_classes(file) if file else {}) if is_option(f"{module}.{one}")]
            raise ConfigError(
                f"{said} is not one of the {kind}s of dstrun{nearest(name, known)}: dstrun help all lists them"
            )
        return
    if top in trusted or (is_library(target) and module in LIBRARY.get(path.partition(".")[0], ())):
        return
    file = locate(module, directories)
    if _top(top, directories) is None:
        raise ConfigError(
            f"{said}: {top} is neither in a folder of yours (the current one, --config-dir and beside it) nor installed"
        )
    if not _own(top, directories):
        raise ConfigError(
            f"{said} is not trusted: it must be in a folder of yours (the current one, --config-dir and beside it), "
            f"or set trusted=[{top}] on the command line"
        )
    if file is None:
        raise ConfigError(f"{said}: there is no {module.replace('.', '/')}.py{_nearest_module(module, directories)}")
    written = _classes(file, functions=path in PLAIN)
    if name not in written:
        kind = "class or function" if path in PLAIN else "class"
        wrong = (
            f"{said} is not a {kind} defined in {file.name}{nearest(name, written)}: name the module that defines it"
        )
        raise ConfigError(f"{said}: {broken}" if (broken := _unreadable(file)) else wrong)


def _nearest_module(module: str, directories: Sequence[str]) -> str:
    """Return the module beside a missing one whose name is nearest, as a hint."""
    above, _, last = module.rpartition(".")
    package = locate(above, directories)
    folders = (folder.joinpath(*above.split(".")) for folder in own_folders(directories))
    places = [package.parent] if package else list(folders)
    return nearest(last, {file.stem for place in places for file in place.glob("*.py")} - {"__init__"})


def _unreadable(file: Path) -> str:
    """Return where a file is no Python; empty where it is."""
    try:
        ast.parse(file.read_bytes())
    except SyntaxError as error:
        return f"{file.name}, line {error.lineno}: {error.msg}"
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return f"{file.name} cannot be read: {why(error)}"
    return ""


def is_library(target: str) -> bool:
    """Return whether a name is of a library that dstrun needs anyway, and may be called without being trusted."""
    module, _, name = target.rpartition(".")
    return any(module in modules for modules in LIBRARY.values()) and (module != "torch.nn" or name.endswith("Loss"))


def own_folders(directories: Sequence[str]) -> list[Path]:
    """Name the folders whose modules are the user's own: of his options, the current one, and those of PYTHONPATH."""
    installed = [Path(prefix).resolve() for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}]
    found = [Path(folder).resolve() for folder in (*directories, ".")]
    for folder in (Path(entry).resolve() for entry in sys.path if entry):
        inside = any(folder.is_relative_to(prefix) for prefix in installed)
        if not inside and folder.name not in ("site-packages", "dist-packages") and folder not in found:
            found.append(folder)
    return found


def is_own(file: Path) -> bool:
    """Return whether a file is in or below a folder of the user's own, and not of this program or an installed one."""
    installed = any(file.is_relative_to(prefix) for prefix in (PACKAGE, sys.prefix, sys.base_prefix))
    if installed or {"site-packages", "dist-packages"} & {*file.parts}:
        return False
    return any(file.is_relative_to(folder) for folder in own_folders(()))


def users_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last line of a user's own code that this program had called when an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    while frames and not Path(frames[0].filename).is_relative_to(PACKAGE):  # the script that called it
        del frames[0]
    return next((frame for frame in reversed(frames) if is_own(Path(frame.filename))), None)


def _own(top: str, directories: Sequence[str]) -> bool:
    """Return whether what would be imported as ``top`` lies in a folder of the user's own."""
    spec = _top(top, directories)
    if spec is None:
        return False
    places = [Path(place) for place in spec.submodule_search_locations or ()] or [Path(spec.origin or "")]
    folders = own_folders(directories)
    return all(place.parent.resolve() in folders for place in places)


def _top(name: str, directories: Sequence[str]) -> ModuleSpec | None:
    try:
        spec = find_spec(name)  # imports nothing, as the name has no dot
    except (ImportError, ValueError):
        return None
    return spec or PathFinder.find_spec(name, [str(folder) for folder in own_folders(directories)])


def locate(module: str, directories: Sequence[str] = ()) -> Path | None:
    """Find the file of a module without importing it or the packages it is in; ``None`` where there is none."""
    top, *rest = module.split(".")
    spec = _top(top, directories)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))  # dotted, it asks for loaded parents
    origin = spec.origin if spec else None
    return Path(origin) if origin and Path(origin).is_file() else None


def is_package(module: str) -> bool:
    """Return whether a module is the ``__init__.py`` of a package."""
    file = locate(module)
    return file is not None and file.stem == "__init__"


def _file(module: str) -> Path | None:
    """Find the file of a module of this program."""
    stem = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


@lru_cache(maxsize=256)
def is_option(target: str) -> bool:
    """Return whether a name is that of an option of this program: a class made by ``@option``, or a network."""
    module, _, name = target.rpartition(".")
    group = module.removeprefix(OURS).partition(".")[0]
    if not module.startswith(OURS) or group not in GROUPS:
        return False
    file = _file(module)
    classes = _classes(file) if file else {}

    def made(one: str, seen: int = 0) -> bool:
        node = classes.get(one)
        if node is None or seen > 5:
            return False
        named = {ast.unparse(decorator) for decorator in node.decorator_list}
        bases = [ast.unparse(base) for base in node.bases]
        network = group == "model" and any(base in ("nn.Module", "Module") for base in bases)
        return "option" in named or network or any(made(base, seen + 1) for base in bases)

    return not name.startswith("_") and made(name)


def _classes(file: Path, functions: bool = False) -> dict[str, Any]:
    """Find the classes at the top of a file, or its functions, too; it is read and not run."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    kinds = (ast.ClassDef, ast.FunctionDef) if functions else ast.ClassDef
    return {node.name: node for node in tree.body if isinstance(node, kinds)}
