"""``hydra/sweeper=grids``, the default: a product of lists, or several (``docs/sweeps.md``)."""

# No `from __future__ import annotations`: when Hydra's search runs this, dataclasses cannot look it up as a module.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


@dataclass
class GridsConf:
    """What a sweep file may set: words of every grid, and those of each."""

    _target_: str = "hydra_plugins.dstrun.sweeper.Grids"
    max_batch_size: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    grids: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grids", node=GridsConf, provider="dstrun")


class Grids(BasicSweeper):
    """Hydra's sweeper, with the runs that dstrun has composed and checked before (``config.expand``)."""

    def __init__(self, max_batch_size: int | None, params: dict[str, Any], grids: Sequence[dict[str, Any]]) -> None:
        super().__init__(max_batch_size, params={})
        self.file = {"params": params, "grids": grids}

    def split_arguments(  # type: ignore[override]  # static in BasicSweeper, which calls it on the instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Give the words of every run, in batches."""
        from dstrun.config import expand

        runs = expand(overrides, **self.file)
        return list(self.split_overrides_to_chunks(runs, max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: ``dstrun`` has composed every run of the sweep before, and composing takes long."""
