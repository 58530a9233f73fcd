"""Training that starts from the network of a finished run: ``init=RUN`` (``docs/weights.md``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dstrun.config.experiment import Experiment
from dstrun.config.identity import by_value
from dstrun.method.interface import Method
from dstrun.report.load import Run
from dstrun.run.finished import CHECKPOINT, find, past
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dstrun.layer.interface import SparseLayer
    from dstrun.layer.topology import Topology
    from dstrun.run.blueprint import Blueprint

DIGITS = 16
"""Of the checksum of the weights, in the name of what a run starts from."""


def resolved(experiment: Experiment) -> Experiment:
    """Name the run that an experiment starts from by its id and the checksum of its weights, and note its folder.

    Raises:
        ConfigError: there is no such run, its weights are not there, or the two do not go together.
    """
    config, word = experiment.config, experiment.config["init"]
    run = find(word, config["results"], "init")
    record: dict[str, Any] = run.record or {}
    _check(run, record, experiment)
    name = f"{run.id}@{record['weights']['checksum'][:DIGITS]}"
    return replace(experiment, config=config | {"init": name}, origin=str(run.folder.absolute()))


def _check(run: Run, record: dict[str, Any], experiment: Experiment) -> None:
    config, name = experiment.config, f"init={run.id}"
    if "weights" not in record:
        raise ConfigError(f"{name} was trained by an older version, whose record has no checksum of its weights")
    if not (run.folder / CHECKPOINT).is_file():
        raise ConfigError(f"{run.folder / CHECKPOINT} is missing: the weights of this run were not kept")
    if config["initialization"] != "network":
        raise ConfigError(
            f"initialization={config['initialization']} makes no sense with init, which provides the weights"
        )
    before, now = record["config"]["model"], config["model"]
    if by_value(before) != by_value(now):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key) and key != "_target_"]
        there, here = (
            " ".join([f"model={choices['model']}", *(f"model.{key}={node.get(key)}" for key in keys if key in node)])
            for choices, node in ((record["choices"], before), (experiment.choices, now))
        )
        raise ConfigError(f"{name} trained {there}, and this run has {here}: the network has to be the same")
    then = past(record, None, config["trusted"], experiment.places).build("method")
    for method, choices in ((then, record["choices"]), (experiment.build("method"), experiment.choices)):
        if type(method).network is not Method.network:
            raise ConfigError(f"{name} makes no sense with method={choices['method']}, which trains another network")


class Origin:
    """The weights that a run starts from.

    Args:
        blueprint: of the run, which has an origin.

    Raises:
        ConfigError: they are not there, or no longer those that were checked.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        from dstrun.run.restore import restore
        from dstrun.run.weights import taken

        experiment = blueprint.experiment
        assert blueprint.origin is not None
        self.blueprint = blueprint
        self.weights = taken(restore(blueprint.origin, None, experiment.config["trusted"], experiment.places))
        checksum = (blueprint.origin.record or {})["weights"]["checksum"]
        if not experiment.config["init"].endswith(f"@{checksum[:DIGITS]}"):
            raise ConfigError(f"init={blueprint.origin.id} has other weights now than when this run was composed")

    def load(self, model: nn.Module) -> None:
        """Load all weights into a dense network; those of inactive connections are 0."""
        from dstrun.run.weights import state

        model.load_state_dict(state(self.blueprint, self.weights))

    def place(self, model: nn.Module, backends: list[str], device: torch.device) -> list[SparseLayer]:
        """Return a network's layers, of each the largest weights that the run keeps."""
        from dstrun.backend import auto
        from dstrun.run.weights import Weights, load_rest, starts

        counts = dict(zip(self.weights.layers, self.blueprint.counts, strict=True))
        kept = {name: largest(*layer, counts[name]) for name, layer in self.weights.layers.items()}
        layers = auto.place(model, starts(kept, model), backends, device)
        load_rest(model, Weights(kept, self.weights.rest))
        return layers


def largest(topology: Topology, values: torch.Tensor, count: int) -> tuple[Topology, torch.Tensor]:
    """Keep the ``count`` connections of largest weights."""
    from dstrun.layer.selection import highest
    from dstrun.layer.topology import Topology

    if count == topology.count:
        return topology, values
    kept = highest(values.abs(), count).sort().values
    return Topology(topology.shape, topology.positions[kept]), values[kept]
