"""Which runs a sweep file has, and which sweep files exist; as text, Hydra's grammar is in ``override``.

A sweep is one product of lists of words, or several: *grids*, each of them the words of all (``params``) and its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from dstrun.config.option import nearest
from dstrun.system.trouble import ConfigError

HERE = "dstrun.sweeps"

MOST_RUNS = 100_000
"""Of a sweep: more would take its client minutes and gigabytes before the first trains."""

Axes = Mapping[str, Sequence[str]]
"""Keys of the configuration, and the words that give each its values: ``{"seed": ["seed=0", "seed=1"]}``."""


def runs(typed: Axes, params: Axes, grids: Sequence[Axes]) -> list[list[str]]:
    """Return the overrides of every run.

    A typed word takes the place of one in ``params``. One whose key only grids have picks: a grid keeps of its values
    those that are typed, and a grid without that key is left as it is.

    Args:
        typed: words of the command line, which win.
        params: words of every grid; a grid's own win over them, typed or not.
        grids: words of each grid; none at all is one that adds nothing.

    Raises:
        ConfigError: a typed word that picks has a value which no grid has, no run is left, or there are too many.
    """
    own = {key for grid in grids for key in grid} - params.keys()
    picked = {key: words for key, words in typed.items() if key in own}
    for key, words in picked.items():
        known = list(dict.fromkeys(word for grid in grids for word in grid.get(key, [])))
        for word in words:
            if _read(word) not in map(_read, known):
                has = f"which has {', '.join(known)}{nearest(word, known)}"
                raise ConfigError(f"{word} is not in any grid of this sweep, {has}")
    shared = {**params, **{key: words for key, words in typed.items() if key not in own}}
    found: list[list[str]] = []
    for grid in grids or [{}]:
        wanted = {key: {_read(word) for word in words} for key, words in picked.items()}
        chosen = {k: [w for w in words if k not in wanted or _read(w) in wanted[k]] for k, words in grid.items()}
        lists = {**shared, **chosen}.values()
        if len(found) + math.prod(map(len, lists)) > MOST_RUNS:
            raise ConfigError(f"a sweep has at most {MOST_RUNS:,} runs, and this one has more: split it")
        found += [list(run) for run in itertools.product(*lists)]
    if not found:
        none = next((key for axes in (shared, *grids) for key, words in axes.items() if not words), None)
        what = " ".join(w for words in picked.values() for w in words)
        raise ConfigError(f"{none} has no value" if none else f"{what} leaves no run of this sweep")
    return found


def _read(word: str) -> tuple[str, str | float]:
    """Read a word so that one number is one, however it is spelled."""
    key, _, text = word.partition("=")
    try:
        number = float(text)
    except ValueError:
        return key, text
    return (key, number) if math.isfinite(number) else (key, text)


def shipped() -> dict[str, str]:
    """Return the name of every sweep file that is shipped, and what it studies: its first comment."""
    paths = {Path(entry.name): entry for entry in files(HERE).iterdir()}
    first = {path.stem: entry.read_text().partition("\n")[0] for path, entry in paths.items() if path.suffix == ".yaml"}
    return {name: first[name].removeprefix("# ") for name in sorted(first)}


def check_name(name: str, config_dirs: Sequence[str] = ()) -> None:
    """Check that there is a sweep file of a name, among those shipped or in a user's folders.

    Raises:
        ConfigError: there is none.
    """
    known = [*shipped(), *sorted(path.stem for folder in config_dirs for path in Path(folder).glob("*.yaml"))]
    if name not in known:
        raise ConfigError(f"-cn {name} is not known: choose {', '.join(known)}{nearest(name, known)}")
