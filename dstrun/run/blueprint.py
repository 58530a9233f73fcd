"""The network of an experiment, without weights: its cost, the network that is trained, every count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dstrun.account.flops import NetworkCost, network_cost
from dstrun.account.survey import Survey, Unsized, survey
from dstrun.allocation.budget import budget, met, percent
from dstrun.allocation.uniform import Uniform
from dstrun.config import trust
from dstrun.config.experiment import Experiment
from dstrun.layer.attention import expose
from dstrun.layer.backend import AUTO, UNMEASURED
from dstrun.layer.interface import prunable, skeleton, stored
from dstrun.model import Model
from dstrun.report.load import Run
from dstrun.run.finished import find
from dstrun.storage.recompute import Recompute, checkpoint
from dstrun.system.trouble import ConfigError, why


@dataclass(frozen=True)
class Outline:
    """A network on the meta device, whose layers that cannot be pruned are marked, and what a pass through it shows."""

    model: nn.Module
    seen: Survey


class Blueprint:
    """What is known of an experiment's networks before there are weights; each is built and counted once.

    Anything may raise ``ConfigError``: the network cannot be counted, or parts do not fit together.

    Args:
        experiment: checked.

    Attributes:
        dataset: its option, which says what an image is and how many classes there are.
        method: its option.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.dataset, self.method = experiment.build("dataset"), experiment.build("method")

    def outline(self, option: Model) -> Outline:
        """Build the network of an option of the group ``model`` without weights, and look at one pass."""
        name, classes = self.experiment.choices["model"], self.dataset.classes
        with torch.device("meta"):
            model = option.build(self.dataset.image, classes)
        expose(model)
        try:
            seen = survey(model, self.dataset.image)
        except Unsized as error:
            raise ConfigError(f"model={name} cannot be counted: {error}") from error
        except Exception as error:
            frame, said = trust.users_frame(error), " ".join(why(error).split())[:200]
            place = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""
            shape = (1, *self.dataset.image)
            raise ConfigError(
                f"model={name} fails on images of shape {shape}: {type(error).__name__}: {said}{place}"
            ) from error
        if seen.gives != (1, classes):
            given = f"a {seen.gives}" if isinstance(seen.gives, str) else f"a tensor of shape {seen.gives}"
            raise ConfigError(f"model={name} returns {given} for one image: it must return logits, (1, {classes}) here")
        return Outline(model, seen)

    def count(self, outline: Outline) -> NetworkCost:
        """Count a network of this data set."""
        return network_cost(outline.model, self.dataset.image, outline.seen)

    @cached_property
    def chosen(self) -> Outline:
        """The network that ``model=`` chooses."""
        return self.outline(self._model)

    @cached_property
    def cost(self) -> NetworkCost:
        """What the network chosen costs: that to which everything is compared."""
        return self.count(self.chosen)

    @cached_property
    def budget(self) -> int:
        """Connections that shall be active at the end."""
        return budget(sum(layer.size for layer in self.cost.layers), self.experiment.config["sparsity"])

    @cached_property
    def option(self) -> Model:
        """The option of the network that is trained: the one chosen, unless the method trains another."""
        return self.method.network(self._model, lambda option: self.outline(option).model, self.budget)

    @cached_property
    def trained(self) -> Outline:
        """The network that is trained."""
        return self.chosen if self.option is self._model else self.outline(self.option)

    @cached_property
    def built(self) -> NetworkCost:
        """What the network that is trained costs, with what is computed again in the backward pass."""
        cost = self.cost if self.trained is self.chosen else self.count(self.trained)
        kind = self.experiment.config["checkpointing"]
        if kind == "none":
            return cost
        again = set(checkpoint(self.outline(self.option).model, kind, Recompute()))  # it changes the network
        return replace(cost, layers=[replace(layer, again=layer.name in again) for layer in cost.layers])

    @cached_property
    def counts(self) -> list[int]:
        """Connections every layer shall have: by the allocation, or the same share of each; all where dense.

        Raises:
            ConfigError: nothing can be pruned; or the method keeps whole structures, and these cannot keep to the
                budget.
        """
        choices = self.experiment.choices
        if not self.cost.layers and self.method.prunes:
            raise ConfigError(f"model={choices['model']} has no layer that can be pruned: set method=dense")
        counts = self.method.counts(self.trained.model, self.budget)
        if counts is not None:
            return counts
        counts = allocated(self.experiment, [layer.shape for layer in self.cost.layers])
        return self._left(counts) if self.origin is not None and self.method.start == "sparse" else counts

    @cached_property
    def origin(self) -> Run | None:
        """The finished run that training starts from.

        Raises:
            ConfigError: its network has other shapes.
        """
        if not self.experiment.origin:
            return None
        run = find(self.experiment.origin, said="init")
        if run.get("network.shapes") != self.shapes:
            raise ConfigError(
                f"init={run.id} has a network of other shapes: for other images, or more or fewer classes"
            )
        return run

    def _left(self, counts: list[int]) -> list[int]:
        """Return what a sparse start keeps of the connections of another run: all, or the counts of the allocation.

        Raises:
            ConfigError: a layer has fewer.
        """
        there = [] if self.origin is None else [layer["active"] for layer in self.origin.get("layers")]
        if sum(there) in (self.budget, sum(counts)):
            return there
        for layer, has, wanted in zip(self.cost.layers, there, counts, strict=True):
            if has < wanted:
                raise ConfigError(
                    f"init={self.experiment.config['init']} has {has:,} connections in {layer.name}, and {wanted:,} "
                    "are needed: raise sparsity, choose its allocation, or a method that starts dense"
                )
        return counts

    def check(self) -> None:
        """Count everything, and so find out what is refused, before images are read."""
        _ = self.counts, self.origin

    @property
    def backends(self) -> list[str]:
        """The backend of every layer before a run starts; ``auto``, which measures then, counts as ``UNMEASURED``."""
        name = self.experiment.config["backend"]
        return [UNMEASURED if name == AUTO else name] * len(self.cost.layers)

    @property
    def shapes(self) -> str:
        """Digest of the names and shapes of all parameters of the network chosen: SHA-256, equal on every backend."""
        lines = [f"{name} {tuple(parameter.shape)}\n" for name, parameter in self.chosen.model.named_parameters()]
        return sha256("".join(lines).encode()).hexdigest()

    @property
    def unmet(self) -> str:
        """Why the layers' counts are not the sparsity asked for, in a sentence; empty where they are."""
        asked, name = self.experiment.config["sparsity"], self.experiment.choices["allocation"]
        total, active = sum(layer.size for layer in self.cost.layers), sum(self.counts)
        if not self.method.budget or met(active, total, asked):
            return ""
        why = ""
        if not self.method.exact:
            why = f", as method={self.experiment.choices['method']} keeps whole channels"
        elif getattr(self.experiment.build("allocation"), "dense_first", False):
            why = f", as allocation={name} keeps the first layer dense on top"
        verb = "are" if self.method.start == "sparse" else "will be"
        real = percent(1 - active / total)
        return f"the target is sparsity={asked:g}, but {real} % of prunable weights {verb} zero{why}"

    def build(self, bare: bool = False) -> nn.Module:
        """Build the network that is trained, with the same layers as its outline.

        Args:
            bare: build no weights that will be drawn anew, unless a layer keeps those that it is built with.
        """
        outlined = self.trained.model
        drawn = {id(stored(module)) for _, module in prunable(outlined)}
        bare = bare and all(id(stored(m)) in drawn for m in outlined.modules() if _has_skeleton(m))
        with skeleton() if bare else nullcontext():
            model = self.option.build(self.dataset.image, self.dataset.classes)
        expose(model)
        self.trained.seen.prepare(model)
        return model

    def parameters(self, active: list[int]) -> dict[str, Any]:
        """Return the ``parameters`` group: ``dense`` and ``active`` count every parameter, ``prunable`` the weights.

        Args:
            active: connections of each layer.
        """
        prunable = sum(layer.size for layer in self.cost.layers)
        return {
            "dense": self.cost.parameters,
            "active": self.built.others + sum(active),
            "prunable": prunable,
            "sparsity": 1 - sum(active) / prunable if prunable else 0.0,
            "asked": self.experiment.config["sparsity"] if self.method.budget else None,
        }

    @property
    def not_prunable(self) -> list[dict[str, Any]]:
        """The list ``not_prunable`` of records and plans."""
        return [asdict(part) for part in self.cost.unpruned]

    @cached_property
    def _model(self) -> Model:
        return self.experiment.build("model")


def allocated(experiment: Experiment, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the connections that the allocation gives layers of these shapes; without one, the same share of each."""
    allocation = experiment.build("allocation") or Uniform(dense_first=False)
    return allocation.counts(shapes, experiment.config["sparsity"])


def _has_skeleton(module: nn.Module) -> bool:
    """Return whether ``skeleton`` builds a module without weights; an exposed attention's are its layers'."""
    if isinstance(module, nn.MultiheadAttention):
        return not hasattr(module, "q_proj")
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
