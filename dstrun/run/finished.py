"""Find a finished run by what a user types, and read its configuration; imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrun.config import identity, own, trust
from dstrun.config.experiment import Experiment
from dstrun.config.option import GROUPS, expanded, nearest
from dstrun.config.schema import DEFAULTS
from dstrun.report import load
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import few

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Facts:
    """What a network has to know of its images: in the place of a data set that need not be here.

    Attributes:
        image: channels, height and width.
        classes: how many there are.
        names: of the classes, in the order of labels; ``None`` where nobody has written them down.
        mean, std: by which images are normalised, of each channel in units of 0..1.
    """

    image: tuple[int, int, int]
    classes: int
    names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, said: Any) -> Facts:
        """Read what ``Loader.facts`` has written.

        Raises:
            ValueError: it is something else.
        """
        try:
            image, names = tuple(map(int, said["image"])), said["names"]
            mean, std = (tuple(map(float, said[key])) for key in ("mean", "std"))
            found = cls(image, int(said["classes"]), None if names is None else tuple(map(str, names)), mean, std)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ValueError(f"no description of its images ({error!r})") from error
        if len(image) != 3 or not len(mean) == len(std) == image[0]:
            raise ValueError("an inconsistent description of its images")
        return found


@dataclass(frozen=True)
class Past(Experiment):
    """The experiment of a finished run, of whose data set the facts are known."""

    facts: Facts | None = None

    def build(self, group: str) -> Any:
        """Build an option; of the data set its facts, where they are known."""
        return self.facts if group == "dataset" and self.facts is not None else super().build(group)


def find(word: str, results: str = "results", said: str = "RUN") -> load.Run:
    """Find a finished run as ``look_up`` does.

    Raises:
        ConfigError: there is no such run, there are several, or it has not finished.
    """
    return _done(look_up(word, results, said), said)


def look_up(word: str, results: str = "results", said: str = "RUN") -> load.Run:
    """Find a run in any state by its folder, or by its id below ``results`` or the beginning of one.

    A word with a slash is looked for in that folder: ``DIR/BEGINNING``.

    Args:
        word: as typed.
        results: where ids are looked for.
        said: what a complaint calls the word.

    Raises:
        ConfigError: there is no such run, or there are several.
    """
    path = Path(expanded(word))
    if path.is_dir() and load.is_run(names := {entry.name for entry in path.iterdir()}):
        return load.read(path, names)
    root = path.parent if "/" in word.rstrip("/") else Path(results)
    below = dict(_runs(root)) if root.is_dir() else {}
    found = [path.name] if path.name in below else [name for name in below if name.startswith(path.name)]
    if not path.name or not found:
        raise ConfigError(
            f"{said}={word} is not the folder of a run, and no id in {root} begins with it{nearest(path.name, below)}"
        )
    places = [folder for name in found for folder in below[name]]
    if len(places) > 1:
        what = few([str(folder) for folder in places])
        raise ConfigError(
            f"{said}={word} may be any of {len(places)} runs: write more of the id, or the folder ({what})"
        )
    return load.read(places[0], {entry.name for entry in places[0].iterdir()})


def _runs(root: Path) -> list[tuple[str, list[Path]]]:
    """List the run folders below a folder by name."""
    found: dict[str, list[Path]] = {}
    for folder, names in load.find(root):
        if load.is_run(names):
            found.setdefault(Path(folder).name, []).append(Path(folder))
    return list(found.items())


def _done(run: load.Run, said: str) -> load.Run:
    if run.record is not None:
        return run
    if run.warnings:
        raise ConfigError(f"{said}={run.folder}: {run.warnings[0].removesuffix(': skipped')}")
    raise ConfigError(f"{said}={run.folder} has not finished (it is {run.state}): the command of the run continues it")


def modules(config_dirs: Sequence[str]) -> tuple[str, ...]:
    """Return where modules of the user's own may be, given the folders of ``--config-dir``."""
    return own.modules(own.folders(config_dirs))


def past(
    record: Mapping[str, Any], facts: Facts | None, trusted: Collection[str] = (), places: Sequence[str] = ()
) -> Past:
    """Return the experiment of a record; nothing that it names is called unless a new run might call it.

    Args:
        record: of a finished run.
        facts: of its images; ``None``: the data set is asked.
        trusted: packages whose classes may be called.
        places: folders of the user's own modules.

    Raises:
        ConfigError: it names a class that may not be called or is not here, or whose code has changed since.
    """
    config = {key: value for key, value in {**copy.deepcopy(DEFAULTS), **record["config"]}.items() if key != "recipe"}
    config |= {group: config.get(group) for group in GROUPS}
    config["checkpoint"] = DEFAULTS["checkpoint"] | config["checkpoint"]
    places = tuple(places) or own.modules(())
    if any(not target.startswith(identity.OWN) for target in identity.targets(config)):
        own.find_modules(places)
    trust.check(config, trusted, places)
    before = (record.get("code") or {}).get("own") or {}
    if changed := [name for name, digest in identity.code(config).items() if before.get(name) != digest]:
        raise ConfigError(f"{record['id']} uses your own {changed[0]}, whose code has changed since")
    choices = {group: record["choices"].get(group) for group in GROUPS}
    return Past(config, choices, places=tuple(places), facts=facts)
