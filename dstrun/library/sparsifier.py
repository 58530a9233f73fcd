"""Sparse training methods in a training loop of your own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dstrun.allocation.budget import budget
from dstrun.backend.auto import check_kernels, sparsify
from dstrun.config.composition import Experiment
from dstrun.config.option import nearest
from dstrun.layer.backend import AUTO, backend, names
from dstrun.layer.criterion import Cost
from dstrun.layer.initial import scale_by_fan_in
from dstrun.layer.interface import SparseLayer, prunable
from dstrun.library.training import composed
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting, check_carried
from dstrun.run.blueprint import allocated
from dstrun.system.trouble import ConfigError

PARTS = ("method", "prune", "grow", "subset", "allocation", "schedule")
SETTINGS = ("sparsity", "seed", "scope", "backend", "initialization", "strict")
STAND_INS = ("model=mlp", "dataset=digits", "epochs=1", "batch_size=1")
"""Settings of a run that a loop has no use for, such that they stand in no method's way."""
MANY = 1000
"""Epochs by which to tell whether a method trains once."""


class Sparsifier:
    """Make the layers of a network sparse, and update them by a method at every step of an optimizer.

    It hooks into the optimizer: a loop that calls ``backward()`` and ``optimizer.step()`` needs no other change. Layers
    start as in ``dstrun.train``: with most methods, weights are initialized anew.

    Args:
        model: on its device; changed in place (``prunable``).
        optimizer: of the network's parameters, before its first step; its groups receive the new ones.
        *words: settings as on the command line, ``"method=gse"``, ``"grow.gamma=2"``: of the method and its parts, and
            ``sparsity``, ``seed``, ``scope``, ``backend``, ``initialization``, ``strict``.
        steps: how many the optimizer takes in total; schedules are relative to it.
        config_dir: a folder of your own options, or several.
        **settings: more of them, ``method="gse", sparsity=0.98``.

    Attributes:
        layers: in the order of ``prunable``.
        step: how many steps were taken.
        update: what the last step changed, if anything.

    Raises:
        ConfigError: a setting is not known, or the method needs more than a training loop offers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *words: str,
        steps: int,
        config_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        **settings: Any,
    ) -> None:
        more = (f"{key}={'null' if value is None else value}" for key, value in settings.items())
        experiment = _experiment([*words, *more], config_dir)
        config, method = experiment.config, experiment.build("method")
        _check_method(experiment, method)
        _check_loop(optimizer, steps)
        self.model, self.optimizer, self.steps = model, optimizer, steps
        self.step, self.update = 0, None
        before = dict(model.named_parameters())
        shapes = [tuple(layer.weight.shape) for _, layer in prunable(model)]
        if not shapes:
            raise ConfigError("the network has no layer that can be pruned")
        counts = allocated(experiment, shapes)
        self.layers = _layers(model, experiment, method, counts)
        _hand_over(optimizer, before, model, self.layers)
        self._settings = {key: config[key] for key in (*PARTS, *SETTINGS)} | {"steps": steps}
        grow = experiment.build("grow")
        self._by_gradient = grow is not None and grow.cost is not Cost.NONE
        self._grows = method.grows_at_zero
        self.procedure: Procedure = method.procedure(
            Setting(
                layers=self.layers,
                prune=experiment.build("prune"),
                grow=experiment.build("grow"),
                schedule=experiment.build("schedule"),
                scope=config["scope"],
                counts=counts if method.allocates(config["scope"]) else None,
                budget=budget(sum(layer.topology.size for layer in self.layers), config["sparsity"]),
                sparsity=config["sparsity"],
                total_steps=steps,
                nominal_steps=steps,
                steps_per_epoch=steps,
                image=(0, 0, 0),
                classes=0,
                seed=config["seed"],
                strict=config["strict"],
                model=model,
                optimizer=optimizer,
                fresh_pass=partial(_refuse, experiment, "needs additional forward passes"),
                overflowed=lambda finite: False,
                samples=partial(_refuse, experiment, "needs additional samples"),
                loss=partial(_refuse, experiment, "needs additional forward passes"),
                rate=partial(_refuse, experiment, "sets the learning rate"),
            )
        )
        _check_procedure(experiment, self.procedure)
        if self.procedure.prepares:
            self.update = self.procedure.prepare()
        for index, layer in enumerate(self.layers):
            layer.weight.register_post_accumulate_grad_hook(partial(self._after_gradient, layer, index == 0))
        optimizer.register_step_pre_hook(self._before_optimizer)
        optimizer.register_step_post_hook(self._after_optimizer)
        self._begin()

    @property
    def sparsity(self) -> float:
        """Return the share of prunable weights that are zero now."""
        active = sum(layer.count for layer in self.layers)
        return 1 - active / sum(layer.topology.size for layer in self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint needs besides that of the network and the optimizer."""
        return {
            "settings": self._settings,
            "step": self.step,
            "layers": {layer.name: layer.state() for layer in self.layers},
            "procedure": self.procedure.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, once the network has loaded its own.

        Raises:
            ConfigError: the checkpoint is of other settings.
        """
        for key, value in self._settings.items():
            if (other := state["settings"].get(key)) != value:
                raise ConfigError(f"the checkpoint was made with {key}={other}, and this Sparsifier with {value}")
        for layer in self.layers:
            layer.load_state(state["layers"][layer.name])
        self.procedure.load_state(state["procedure"])
        self.step = state["step"]
        self._begin()

    def _begin(self) -> None:
        """Prepare the next step: what looks for candidates does so in its backward pass."""
        step = self.step + 1
        self._passes = 0
        armed = self._by_gradient and self.procedure.updates_at(step)
        self._confines = self.procedure.plain and not armed
        self.procedure.before_step(step)

    def _after_gradient(self, layer: SparseLayer, first: bool, weight: Tensor) -> None:
        """Confine a gradient as soon as nobody needs the rest, so that its norm is that of a sparse one."""
        self._passes += first
        if self._passes > 1 and self._by_gradient:
            raise ConfigError(
                "two backward passes before a step of the optimizer: growth by gradient looks at one, so it "
                "cannot be combined with gradient accumulation or with a GradScaler, which skips steps (bf16 "
                "needs none)"
            )
        if self._confines:
            layer.confine_gradient()

    def _before_optimizer(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Update in place of the step where the method does: without gradients, the optimizer changes nothing."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._after_backward()
            return None

        def followed() -> Any:
            loss = closure()
            self._after_backward()
            return loss

        return ((args[0], followed, *args[2:]), kwargs) if len(args) > 1 else (args, kwargs | {"closure": followed})

    def _after_backward(self) -> None:
        self.update = self.procedure.after_backward(self.step + 1)
        if self.update is not None:
            self.optimizer.zero_grad(set_to_none=True)
            return
        for layer in self.layers:
            layer.confine_gradient()

    def _after_optimizer(self, *_: Any) -> None:
        self.step += 1
        self.update = self.procedure.after_step(self.step) or self.update
        if self.step == 1:
            check_carried(self.procedure, self.layers, self._grows, range(2, self.steps + 1))
        self._begin()


def _experiment(words: Sequence[str], config_dir: Any) -> Experiment:
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        top, _, leaf = key.partition(".")
        if top not in PARTS and (leaf or top not in SETTINGS):
            known = [*PARTS, *SETTINGS]
            raise ConfigError(f"{word} does not apply to a Sparsifier: choose {', '.join(known)}{nearest(top, known)}")
    return composed([*STAND_INS, *words], config_dir)


def _check_method(experiment: Experiment, method: Method) -> None:
    """Refuse a method that does more than hook into steps.

    Raises:
        ConfigError: it does.
    """
    config, kind = experiment.config, type(method)
    if method.start == "none":
        _refuse(experiment, "has no sparse layer")
    if kind.network is not Method.network or kind.counts is not Method.counts:
        _refuse(experiment, "trains another network")
    if kind.reparametrize is not Method.reparametrize or kind.parameters is not Method.parameters:
        _refuse(experiment, "computes weights from parameters of its own")
    if method.epochs(MANY, config["sparsity"]) != MANY:
        _refuse(experiment, "trains several times")
    if method.scored_samples(1) or method.fresh_samples(1, 1) or method.update_samples(1):
        _refuse(experiment, "needs additional forward passes")
    if config["backend"] == AUTO:
        raise ConfigError(f"backend=auto times steps of a run: choose {' or '.join(names())}")


def _check_procedure(experiment: Experiment, procedure: Procedure) -> None:
    """Refuse a procedure that does more than hook into steps.

    Raises:
        ConfigError: it does.
    """
    kind = type(procedure)
    if kind.penalty is not Procedure.penalty or kind.rate_at is not Procedure.rate_at:
        _refuse(experiment, "changes the loss or the learning rate")
    if procedure.own:
        _refuse(experiment, "trains parameters of its own")


def _refuse(experiment: Experiment, why: str, *_: Any) -> NoReturn:
    raise ConfigError(f"method={experiment.choices['method']} {why}, which only dstrun.train supports")


def _check_loop(optimizer: Optimizer, steps: int) -> None:
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"steps={steps} must be a whole number of at least 1")
    if optimizer.state:
        raise ConfigError("the optimizer has taken steps already: make the Sparsifier before its first")
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        raise ConfigError("a Sparsifier works in one process: several would draw different topologies")


def _layers(model: nn.Module, experiment: Experiment, method: Method, counts: Sequence[int]) -> list[SparseLayer]:
    """Start the layers as the runner does (``run.assemble.build_model``)."""
    config, devices = experiment.config, {layer.weight.device for _, layer in prunable(model)}
    if len(devices) > 1:
        raise ConfigError(f"the network is on several devices: {', '.join(sorted(map(str, devices)))}")
    device = devices.pop()
    if method.start == "all":
        if config["initialization"] == "fan_in":
            scale_by_fan_in(model, config["seed"])
        return backend(config["backend"]).wrap(model, device)
    check_kernels(model, config["backend"], device)
    try:
        return sparsify(model, counts, [config["backend"]] * len(counts), config["seed"], device)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _hand_over(
    optimizer: Optimizer, before: Mapping[str, Tensor], model: nn.Module, layers: Sequence[SparseLayer]
) -> None:
    """Put the parameters of new layers into the optimizer in the place of those they replace."""
    after = dict(model.named_parameters())
    new = {id(old): after[name] for name, old in before.items() if name in after}
    for group in optimizer.param_groups:
        group["params"] = [new.get(id(parameter), parameter) for parameter in group["params"]]
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for layer in layers:
        if id(layer.weight) not in held:
            raise ConfigError(
                f"the optimizer lacks the weight of {layer.name}: create it from the network's parameters"
            )
        layer.optimizer = optimizer
