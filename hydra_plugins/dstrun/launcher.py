"""``hydra/launcher=local`` and ``hydra/launcher=slurm``: Hydra's side of ``dstrun.launcher``; quick to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import DictConfig

if TYPE_CHECKING:
    from dstrun.launcher.sweep import Engine


class Local(Launcher):
    """Trains the runs of a sweep in processes of this machine."""

    def __init__(self, **settings: Any) -> None:
        from dstrun.launcher.local import Local as Settings

        self.engine = Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra has composed."""
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the runs of these overrides."""
        return sweep(self.engine, "local", self.config, job_overrides)


class Slurm(SlurmLauncher):
    """Trains the runs of a sweep in jobs of a SLURM cluster."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the runs of these overrides."""
        from dstrun.launcher.slurm import Slurm as Settings

        assert self.config is not None
        return sweep(Settings(self.params), "slurm", self.config, job_overrides)


def sweep(engine: Engine, name: str, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Train the runs of these overrides, which have been composed and checked before."""
    import sys

    from dstrun.config.composition import compose_runs
    from dstrun.launcher.sweep import Sweep

    experiments = compose_runs(job_overrides, config.hydra.job.config_name, list(config.hydra.overrides.hydra))
    endings = Sweep(experiments, engine, name, sys.argv).run()
    return [JobReturn(_return_value=ending, status=JobStatus.COMPLETED) for ending in endings]
