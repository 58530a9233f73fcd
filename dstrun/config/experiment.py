"""One run: a configuration that has been composed and checked, and the options that it is made of. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dstrun.config import contract, own, plain


@dataclass(frozen=True)
class Experiment:
    """A resolved configuration: plain values, the option chosen in each group, and the words that make it.

    ``places`` are where modules of the user's own may be: a process that gets the experiment looks there, too.
    ``origin`` is the folder of the run that it starts from, if it starts from one.
    """

    config: dict[str, Any]
    choices: dict[str, str | None]
    command: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    origin: str = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        own.find_modules(self.places)

    def build(self, group: str) -> Any:
        """Instantiate the option chosen in a group, or ``None`` where none is.

        Raises:
            ConfigError: a key the option does not have, a value of the wrong type or out of its bounds, or a class that
                is not there or lacks what its group asks for.
        """
        node = self.config.get(group)
        if node is None:
            return None
        return _build(group, json.dumps(node))


@lru_cache(maxsize=256)  # options are frozen, and a sweep builds few distinct ones many times
def _build(group: str, node: str) -> Any:
    said = json.loads(node)
    contract.check_node(group, said, group)
    try:
        option = instantiate(OmegaConf.create(plain.adapted(group, said)), _convert_="all")
    except HydraException as error:
        raise contract.sentence(error, group, said["_target_"]) or error from error
    contract.check_option(group, option, said["_target_"])
    return option
