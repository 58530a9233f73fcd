"""Which of Hydra's own settings have an effect; others are refused, on the command line and in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dstrun.system.trouble import ConfigError

CHOSEN = ("hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler")
TAKEN = ("hydra.launcher", "hydra.sweeper", "hydra.searchpath")
INSTEAD = {
    "hydra.run": "results= and experiment= set where runs are written",
    "hydra.sweep": "results= and experiment= set where runs are written",
    "hydra.output_subdir": "results= and experiment= set where runs are written",
    "hydra.job.chdir": "a run stays in the folder it is started in",
    "hydra.job.env_set": "set the variable in the shell",
    "hydra.job.env_copy": "runs have the variables of the shell",
    "hydra.mode": "-m sweeps, and so does a sweep file (-cn)",
    "hydra.verbose": "dstrun --info shows how a configuration is composed",
    "hydra.job.name": "experiment= names the folder of the runs",
}
LOGGING: dict[str, Any] = {"version": 1, "root": None, "disable_existing_loggers": False}
PLAIN: dict[str, Any] = {
    "hydra.run.dir": ".",
    "hydra.sweep.dir": "${results}/${experiment}",
    "hydra.sweep.subdir": ".",
    "hydra.output_subdir": None,
    "hydra.callbacks": {},
    "hydra.env": {},
    "hydra.verbose": False,
    "hydra.hydra_logging": LOGGING,
    "hydra.job_logging": LOGGING,
    "hydra.job.name": "dstrun",
    "hydra.job.chdir": None,
    "hydra.job.env_set": {},
    "hydra.job.env_copy": [],
}
"""Settings that a file might change, and what they are where none does."""


def keys(overrides: Iterable[Any]) -> list[str]:
    """Return the keys of the words that are for Hydra."""
    found = [override.get_key_element().lstrip("+~") for override in overrides]
    return [key for key in found if key.replace("/", ".").partition(".")[0] == "hydra"]


def check_words(keys: Iterable[str]) -> None:
    """Refuse words for Hydra that would be taken and do nothing.

    Raises:
        ConfigError: said in one sentence.
    """
    for key in keys:
        if key in CHOSEN or any(f"{key}.".startswith(f"{taken}.") for taken in TAKEN):
            continue
        raise _refused(key)


def check_composed(hydra: Mapping[str, Any]) -> None:
    """Refuse what files set and nothing acts on.

    Args:
        hydra: the composed settings, not resolved.

    Raises:
        ConfigError: said in one sentence.
    """
    for part in ("launcher", "sweeper"):
        if not isinstance(hydra.get(part), Mapping) or "_target_" not in hydra[part]:
            raise ConfigError(f"hydra.{part}={hydra.get(part)} makes no sense: hydra/{part}=NAME chooses one")
    for key, plain in PLAIN.items():
        node: Any = hydra
        for part in key.split(".")[1:]:
            node = node.get(part) if isinstance(node, Mapping) else None
        if node != plain:
            raise _refused(key, " in a file")


def _refused(key: str, where: str = "") -> ConfigError:
    instead = next((what for name, what in INSTEAD.items() if f"{key}.".startswith(f"{name}.")), "")
    instead = instead or f"of Hydra's settings, {', '.join(TAKEN)} are supported"
    return ConfigError(f"{key}{where} does nothing here: {instead}")
