"""``hydra/sweeper=grids``, the default: a product of lists, or several (``docs/sweeps.md``)."""

# No `from __future__ import annotations`: when Hydra's search runs this, dataclasses cannot look it up as a module.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridsConf:
    """What a sweep file may set: words of every grid, and those of each."""

    _target_: str = "hydra_plugins.dstrun.sweeper.Grids"
    max_batch_size: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    grids: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grids", node=GridsConf, provider="dstrun")


class Grids(Sweeper):
    """Gives the launcher the runs that dstrun has composed and checked before (``config.expand``), in batches."""

    def __init__(self, max_batch_size: int | None, params: dict[str, Any], grids: Sequence[dict[str, Any]]) -> None:
        self.max_batch_size, self.file = max_batch_size, {"params": params, "grids": grids}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra has composed."""
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch the runs of the words typed and of the file."""
        from dstrun.config.composition import expand
        from dstrun.config.override import parse
        from dstrun.system.trouble import ConfigError

        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size={self.max_batch_size} must be at least 1")
        assert self.launcher is not None
        runs = expand(parse(arguments), **self.file)
        size = self.max_batch_size or len(runs)
        return [self.launcher.launch(runs[first : first + size], first) for first in range(0, len(runs), size)]
