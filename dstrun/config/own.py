"""A user's own folders: whether they exist, hide nothing shipped, and where Python finds their modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from dstrun.config.option import expanded
from dstrun.system.trouble import ConfigError

SHIPPED = ("dstrun.conf", "dstrun.sweeps")

SEARCHED: list[str] = []
"""The folders of ``--config-dir`` that Hydra is opened on, of which its plugin (``hydra_plugins.dstrun``) tells it."""


@contextmanager
def searched(config_dirs: Sequence[str]) -> Iterator[None]:
    """Make Hydra search folders after the shipped ones while it is open, and restore its state afterwards."""
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    SEARCHED[:] = config_dirs
    try:
        yield
    finally:
        SEARCHED.clear()
        GlobalHydra.instance().hydra = before


def folders(words: Sequence[str]) -> list[str]:
    """Return the folders of ``--config-dir`` as absolute paths.

    Raises:
        ConfigError: one is not there, or has a file that hides another of that name.
    """
    found = [Path(expanded(word)).absolute() for word in words]
    for word, folder in zip(words, found, strict=True):
        if not word:
            raise ConfigError("--config-dir is empty: name a folder")
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {word} is {'not a folder' if folder.exists() else 'missing'}")
    check(found)
    return [str(folder) for folder in found]


def check(found: Sequence[Path]) -> None:
    """Check that no file of a folder has the name of one that is shipped, or of another folder.

    Raises:
        ConfigError: one has, so that only one of them could be meant.
    """
    for folder in found:
        for package in SHIPPED:
            for path, entry in _yaml(files(package)):
                mine = folder / path
                if mine.is_file() and mine.read_bytes() != entry.read_bytes():
                    raise ConfigError(f"{here(mine)} has the name of a file that comes with dstrun: rename it")
    for number, folder in enumerate(found):
        for other in found[number + 1 :]:
            if other == folder:
                continue
            for mine in (*folder.glob("*.yaml"), *folder.glob("*/**/*.yaml")):
                if (other / mine.relative_to(folder)).is_file():
                    raise ConfigError(f"{here(mine)} is in {here(other)} too: rename one of them")


def is_shipped(path: str) -> bool:
    """Return whether there is a file of this name among those shipped, where Hydra finds it first."""
    return any((files(package) / path).is_file() for package in SHIPPED)


def check_search(paths: Iterable[str]) -> None:
    """Check the folders of ``hydra.searchpath``.

    Raises:
        ConfigError: one is not there, or hides a file.
    """
    mine = [Path(path.removeprefix("file://")) for path in paths]
    for folder in mine:
        if not folder.is_dir():
            raise ConfigError(f"hydra.searchpath: {folder} is missing")
    check(mine)


def here(path: Path) -> Path:
    """Return a path as seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _yaml(folder: Traversable, prefix: str = "") -> Iterable[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yaml(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield f"{prefix}{entry.name}", entry


def modules(config_dirs: Sequence[str]) -> tuple[str, ...]:
    """Return where the modules of a user's own options may be: here, in his folders, and beside them."""
    places = [Path.cwd(), *(place for folder in config_dirs for place in (Path(folder), Path(folder).parent))]
    return tuple(dict.fromkeys(str(place.absolute()) for place in places))


def find_modules(places: Iterable[str]) -> None:
    """Make Python find modules there, after all that is installed."""
    sys.path += [place for place in places if place not in sys.path]
