"""Which files Hydra reads, each within bounds before it is parsed, and which flags find them again. No torch."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from dstrun.config import own
from dstrun.config.diagnose import FAULTS, folders, leaves, told, written
from dstrun.config.interpolation import Unresolved
from dstrun.config.override import parse
from dstrun.system.bounded import check_file, content, parse_yaml
from dstrun.system.trouble import ConfigError

SEARCH = "hydra.searchpath"


class Files(FileConfigSource):
    """A folder of the user's own, of which a file out of bounds refuses no configuration but those that use it."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Check a file, then read it."""
        file = Path(self.path, self._normalize_file_name(config_path))
        check_file(file)
        try:
            found = super().load_config(config_path)
        except GrammarParseError as error:
            first = str(error).splitlines()[0]
            raise Unresolved(error.full_key or "", str(error.value), first, file) from error
        plain = OmegaConf.to_container(found.config, resolve=False)
        if isinstance(plain, dict) and isinstance(plain.get("wandb"), str):  # as older versions had it
            OmegaConf.update(found.config, "wandb", {"mode": plain["wandb"]}, merge=False)
        return found


class Shipped(ImportlibResourcesConfigSource):
    """A package's configurations, each parsed once: they stay as they are while a process runs."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a copy of what a file holds; Hydra takes the list of defaults out of it."""
        return pickle.loads(_parsed(self.provider, f"pkg://{self.path}", config_path))

    def is_config(self, config_path: str) -> bool:
        """Return whether there is such a file."""
        return _is_config(f"pkg://{self.path}", config_path)

    def is_group(self, config_path: str) -> bool:
        """Return whether there is such a folder."""
        return _is_group(f"pkg://{self.path}", config_path)


@cache
def _parsed(provider: str, path: str, config_path: str) -> bytes:
    return pickle.dumps(ImportlibResourcesConfigSource(provider, path).load_config(config_path))


@lru_cache(maxsize=4096)
def _is_config(path: str, config_path: str) -> bool:
    return ImportlibResourcesConfigSource("", path).is_config(config_path)


@lru_cache(maxsize=4096)
def _is_group(path: str, config_path: str) -> bool:
    return ImportlibResourcesConfigSource("", path).is_group(config_path)


def bound() -> None:
    """Make Hydra read files through ``Files``, and those of packages through ``Shipped``."""
    SourcesRegistry.instance().types |= {Files.scheme(): Files, Shipped.scheme(): Shipped}


def primary(name: str) -> dict[str, Any]:
    """Read a primary configuration as it was written, where Hydra is open and before types are known.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        found = written(name)
        plain = {} if found is None else OmegaConf.to_container(found, resolve=False)
    except FAULTS as error:
        raise told(error) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"-cn {name}: the file holds {plain} instead of settings")
    return plain  # type: ignore[return-value]


def check_search(overrides: Iterable[Override], name: str) -> None:
    """Check the folders of ``hydra.searchpath``, of words or file, before Hydra looks there.

    Raises:
        ConfigError: it is no list of folders, or one is not there or hides a file; a package, as it would be imported.
    """
    _, said = _search(overrides, name)
    if said is None:
        return
    folders: list[Any] = said if isinstance(said, list) else [said]
    plain = [isinstance(path, str) and "://" not in path.removeprefix("file://") for path in folders]
    if folders is not said or not all(plain):
        shown = said if folders is not said else f"[{', '.join(map(str, said))}]"
        raise ConfigError(f"{SEARCH}={shown} must be a list of folders, as [DIR]")
    own.check_search(folders)


def _search(overrides: Iterable[Override], name: str) -> tuple[str, Any]:
    """Return who sets ``hydra.searchpath``, in Hydra's words, and what to."""
    hydra = primary(name).get("hydra")
    who, said = f"{SEARCH} in main", hydra.get("searchpath") if isinstance(hydra, dict) else None
    for override in overrides:
        key = override.get_key_element()
        if key.lstrip("+~").startswith(SEARCH):
            if key != SEARCH:
                raise ConfigError(f"{override.input_line} does nothing here: write {SEARCH}=[DIR]")
            who, said = f"{SEARCH} in command-line", "null" if override.value() is None else override.value()
    return who, said


def composed(words: Sequence[str], name: str) -> dict[Path, ConfigSource]:
    """Return the files of the user's own that words compose, and the folder of each, where Hydra is open.

    Args:
        words: that choose options, and those to Hydra; others change nothing.
        name: the primary configuration.
    """
    if not folders() and not any(SEARCH in word for word in words):
        return {}
    loader = GlobalHydra.instance().config_loader()
    defaults = loader.compute_defaults_list(name, list(words), RunMode.RUN).defaults
    who, said = _search(parse(words), name)
    mine = [source for source in loader.get_sources() if source.scheme() == Files.scheme()]
    mine += [Files(who, folder) for folder in said or ()]
    paths = [f"{found.config_path.removesuffix('.yaml')}.yaml" for found in defaults if found.config_path]
    here = {Path(source.path, path): source for path in paths if not own.is_shipped(path) for source in mine}
    return {file: source for file, source in here.items() if file.is_file()}


def placed(error: Unresolved, words: Iterable[Override], files: Iterable[Path]) -> Unresolved:
    """Return what is wrong with an interpolation with the file that it stands in; as it is, where a word says it."""
    if error.file:
        return error
    key = re.sub(r"\[(\d+)\]", r".\1", error.key)
    for word in words:
        if "${" in (word.input_line or "") and f"{key}.".startswith(f"{word.get_key_element().lstrip('+~')}."):
            return error
    for file in reversed(list(files)):
        with suppress(OSError, ValueError):
            held = leaves(parse_yaml(content(file).decode()))
            if any(value == error.text and f".{key}".endswith(f".{leaf}") for leaf, value in held):
                return Unresolved(error.key, error.text, error.why, file)
    return error


def flags(used: Iterable[ConfigSource], roots: Iterable[Path], words: Iterable[Override]) -> list[str]:
    """Return the words that make Hydra read the same files again, and Python find the same modules, from here.

    Args:
        used: folders of the user's own whose files are composed.
        roots: folders that modules of his are in.
        words: as typed.
    """
    providers = {source.provider for source in used}
    taken = {Path(source.path) for source in used if source.provider == "command-line"}
    for root in (root for root in roots if root != Path.cwd()):
        if not any(root in (folder, folder.parent) for folder in taken):
            taken |= {*[folder for folder in folders() if root in (folder, folder.parent)][:1]}
    found = [f"--config-dir={own.here(folder)}" for folder in folders() if folder in taken]
    if providers & {f"{SEARCH} in command-line"}:
        found += [word.input_line or "" for word in words if word.get_key_element() == SEARCH]
    return found
