"""One run's training in memory: the objects, one step, and the state a checkpoint keeps."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dstrun.account.flops import FlopMeter
from dstrun.account.memory import MemoryMeter
from dstrun.dataset.loader import Loader
from dstrun.layer.backend import backend
from dstrun.layer.interface import SparseLayer
from dstrun.method.procedure import Procedure, check_carried
from dstrun.method.statistics import frozen_statistics
from dstrun.method.update import ProductCounts, Update
from dstrun.optimizer.rate import Rate
from dstrun.storage.activations import Kept
from dstrun.storage.recompute import Recompute
from dstrun.system.ranks import ALONE, Passes, Ranks
from dstrun.system.stream import stream
from dstrun.system.transfer import numbers
from dstrun.train.clock import Clock
from dstrun.train.device import seed_device
from dstrun.train.early import EarlyStop
from dstrun.train.evaluate import evaluate
from dstrun.train.graph import WARM, Step, capture, counters_on_host, fuse
from dstrun.train.passing import Batch, Passing
from dstrun.train.precision import Precision, lay_out
from dstrun.train.working import Working

log = logging.getLogger("dstrun")


@dataclass
class Training:
    """What ``fit`` works with.

    ``step`` counts the steps done, ``total_steps`` those of the run, ``nominal_steps`` those of one training, of which
    a method may make several; ``initial`` the active connections of every prunable layer at the first step. ``grows``
    says whether connections appear in training, ``skipped`` how many updates were left out, which ``updates`` lacks,
    ``graphs`` whether ordinary steps are replayed as a CUDA graph where they can be and all ``activations`` are kept
    in full, ``criterion`` the loss where it is not the cross-entropy, ``lr`` the rate of the last step.
    """

    model: nn.Module
    layers: list[SparseLayer]
    optimizer: torch.optim.Optimizer
    rate: Rate
    precision: Precision
    data: Loader
    device: torch.device
    seed: int
    label_smoothing: float
    total_steps: int
    flops: FlopMeter
    memory: MemoryMeter
    clock: Clock
    nominal_steps: int
    ranks: Ranks = ALONE
    passes: Passes = field(default_factory=Passes)
    recompute: Recompute = field(default_factory=Recompute)
    grows: bool = False
    graphs: bool = False
    activations: str = "full"
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None
    early: EarlyStop = field(default_factory=EarlyStop)
    lr: float = 0.0
    procedure: Procedure = field(default_factory=Procedure)
    step: int = 0
    updates: int = 0
    skipped: int = 0
    initial: list[int] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    epoch_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.loss_sum = torch.zeros((), device=self.device)
        kept = Kept(self.activations, self.seed, self.model, self.ranks.rank)
        how = self.precision, self.passes, kept, self.recompute
        self.passing = Passing(lambda *given: self.loss(*given), *how, self.ranks, self.device, self.seed)
        self.sizes = [layer.size for layer in self.flops.cost.layers]
        self._overflowed = self._state_checked = False
        self._warm = 0
        self._repeatable: bool | None = None
        self._replay: Step | None = None
        self._called: Callable[[Tensor], Tensor] = self.model
        self._counters = counters_on_host(self.model) if self.device.type == "cuda" and self.ranks.size == 1 else []

    @property
    def over(self) -> bool:
        """Return whether no step is left to take."""
        return self.step == self.total_steps or self.early.reached

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the run's optimizer and those of the method's own parameters."""
        return [self.optimizer, *self.procedure.own]

    def products(self) -> ProductCounts:
        """Count the connections of every prunable layer that take part in the next step's products."""
        counted = self.procedure.products()
        built = [layer.size for layer in self.flops.built.layers]
        return counted or ProductCounts.of([layer.count for layer in self.layers] if self.layers else built)

    def active(self) -> list[int]:
        """Count the active connections of every prunable layer."""
        return self.products().forward

    def densities(self) -> dict[str, float]:
        """Return the active share of every sparse layer."""
        counts = zip(self.layers, self.active(), self.sizes, strict=False)
        return {layer.name: active / size for layer, active, size in counts}

    def explored(self) -> float:
        """Return the share of all layers' connections that have been active at any time; 1 where no layer is sparse."""
        sizes = [math.prod(layer.geometry.shape) for layer in self.layers]
        shares = numbers([layer.explored() for layer in self.layers])
        ever = sum(share * size for share, size in zip(shares, sizes, strict=True))
        return ever / sum(sizes) if sizes else 1.0

    def topology(self) -> list[dict[str, Any]]:
        """Return the connections of every prunable layer for the record: all, active at first and last, ever active."""
        shares = numbers([layer.explored() for layer in self.layers])
        explored = {layer.name: share for layer, share in zip(self.layers, shares, strict=True)}
        return [
            {
                "name": layer.name,
                "shape": "x".join(map(str, layer.shape)),
                "connections": layer.size,
                "initial": initial,
                "active": active,
                "explored": explored.get(layer.name, 1.0),
            }
            for layer, initial, active in zip(self.flops.cost.layers, self.initial, self.active(), strict=True)
        ]

    def prepare(self) -> list[Update]:
        """Make ready for the first step: let the method score and prune, if it does."""
        updates = self._prune_before() if self.procedure.prepares else []
        self.initial = self.active()
        return updates

    def _prune_before(self) -> list[Update]:
        with self.memory.phase("prepare"), self.ranks.alone():
            update = self.procedure.prepare()
        self.optimizer.zero_grad(set_to_none=True)
        if update is None:
            return []
        self.flops.scored(update, self.products())
        self.updates += 1
        return [update]

    def take_step(self) -> list[Update]:
        """Train on the next batch: one step of the optimizer, or the topology update that replaces it."""
        step = self.step + 1
        self._set_rate(self.rate.lr_at(*self.procedure.rate_at(step - 1, self.total_steps)))
        with self.ranks.alone():
            before = self._heeded(self.procedure.before_step(step))
        if self._repeats(step):
            seed_device(self.device, stream(self.seed, "dropout", step))
            products = self.products()
            x, y = self.data.batch(step - 1)
            (self._replay or self._capture(x, y))(x, y)
            self.flops.step(len(y), products, [])
            self.step = step
            return []
        model = self.model
        if not self.procedure.updates_at(step):  # its backward pass may look for candidates in place of gradients
            few = partial(self.data.batch, step - 1, slice(self.passes.size))
            model = self.ranks.overlapped(model, lambda tried: self.passing.forward(tried, *few(), step, "trial"))
        here = self.data.batch_size // self.ranks.size
        batch = partial(self.data.batch, step - 1)
        loss, products = self._pass(model, here, batch, "dropout")
        self.loss_sum += self.ranks.average(loss)
        if model is self.model:
            self.ranks.average_gradients(model)
        if self.procedure.updates_at(step):
            self._overflowed = self._overflows()
        replaced = self._heeded(self.procedure.after_backward(step))
        if replaced is None:
            for layer in self.layers:
                layer.confine_gradient()
            self.precision.step(*self.optimizers)
        with self.ranks.alone():
            after = self.procedure.after_step(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        updates = [update for update in (before, replaced, after) if update is not None]
        self.flops.step(self.data.batch_size, products, updates)
        self.updates += sum(not update.skipped for update in updates)
        self.step = step
        self._warm += not updates
        self._check_state()
        if updates:
            self.compare()
        return updates

    def _pass(self, model: nn.Module, samples: int, batch: Batch, what: str) -> tuple[Tensor, ProductCounts | Tensor]:
        """Pass samples of the next step forward and backward.

        Returns:
            The loss, (), without the method's penalty, and what was computed (``FlopMeter.step``).
        """
        step = self.step + 1
        with self.passing.summing(samples) as wanted:
            if wanted:
                with frozen_statistics(self.model):
                    self.passing.both(self.model, samples, batch, step, what)
                self.optimizer.zero_grad(set_to_none=True)
        counted: list[ProductCounts | Tensor] = []

        def penalty() -> Tensor | None:
            found = self.procedure.counted()
            counted.append(self.products() if found is None else found)
            return self.procedure.penalty(step)

        return self.passing.both(model, samples, batch, step, what, penalty), counted[0]

    def _repeats(self, step: int) -> bool:
        """Return whether a step is one that a graph replays."""
        if self._repeatable is None:
            self._repeatable = self.graphs and self._is_repeatable()
            if self.device.type == "cuda" and self._is_repeatable():
                fuse(self.optimizer, self.device)  # replayed or not, so that both compute the same
        return self._repeatable and self._warm >= WARM and not self.procedure.updates_at(step)

    def _is_repeatable(self) -> bool:
        """Return whether all ordinary steps launch the same kernels on the same tensors."""
        alone = self.ranks.size == 1 and all(backend(layer.backend).repeats for layer in self.layers)
        fixed = self.procedure.plain and not self.precision.scales
        return alone and fixed and self.passing.plain and type(self.optimizer) is torch.optim.SGD

    def _capture(self, x: Tensor, y: Tensor) -> Step:
        """Record an ordinary step; where that fails, go on without."""
        if self.precision.dtype is not None:
            self._called = Working(self.model, self.precision.dtype)
        try:
            self._replay = capture(self._ordinary_step, x, y, self._counters)
        except RuntimeError as error:
            log.warning("no CUDA graph of a step can be made (%s): its kernels are launched one by one", error)
            self._replay = self._ordinary_step
        return self._replay

    def _ordinary_step(self, x: Tensor, y: Tensor) -> None:
        """Do what ``take_step`` does with a batch where the method takes no part."""
        loss = self.passing.forward(self._called, x, y, self.step + 1, "")
        self.loss_sum += loss.detach()
        loss.backward()
        for layer in self.layers:
            layer.confine_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _set_rate(self, rate: float) -> None:
        """Set the learning rate of a step; of parameters that have one of their own, to the same share of it."""
        self.lr = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        for group in (group for optimizer in self.procedure.own for group in optimizer.param_groups):
            group["lr"] = rate * (group["initial_lr"] / self.rate.lr)

    def _check_state(self) -> None:
        """Refuse an optimizer whose state updates would leave stale, as soon as it has any."""
        if self._state_checked or not self.optimizer.state:
            return
        self._state_checked = True
        check_carried(self.procedure, self.layers, self.grows, range(self.step + 1, self.total_steps + 1))

    def _overflows(self) -> bool:
        """Return whether gradients overflowed, those of the layers' weights aside: not every backend has them now."""
        apart = {id(layer.weight) for layer in self.layers}
        others = [p.grad for p in self.model.parameters() if id(p) not in apart and p.grad is not None]
        return self.precision.overflowed(gradient.isfinite().all() for gradient in others)

    def overflowed(self, finite: Iterable[Tensor]) -> bool:
        """Return whether gradients of the pass that looked for candidates overflowed (fp16).

        Args:
            finite: of each layer, (), whether those of its candidates are finite.
        """
        return self._overflowed or self.precision.overflowed(finite)

    def _heeded(self, update: Update | None) -> Update | None:
        """Lower the scale of the loss where an update was left out for gradients that overflowed, and say so."""
        if update is not None and update.skipped:
            self.precision.back_off()
            self.skipped += 1
            log.warning(
                "gradients overflowed at step %d: its step is skipped (precision=fp16, %d so far)",
                update.step,
                self.skipped,
            )
        return update

    def compare(self) -> None:
        """Make sure that all processes are at the same step with the same topologies.

        Raises:
            RuntimeError: they are not.
        """
        if self.ranks.size > 1:
            self.ranks.check_equal(
                [self.step, *(layer.topology.checksum() for layer in self.layers)], "steps or topologies"
            )

    def fresh_pass(self, step: int, samples: int | None) -> int:
        """Run a forward and backward over samples drawn for the step, without touching normalization statistics."""
        x, y = self.data.sample(step, samples or self.data.batch_size)
        with frozen_statistics(self.model):
            self._pass(self.model, len(y), lambda part: (x[part], y[part]), "fresh dropout")
        self._overflowed = self._overflows()
        self.optimizer.zero_grad(set_to_none=True)
        return len(y)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the held-out split; the network is left in training mode."""
        together = self.data.batch_size if self.passes.size is None else self.passes.size * self.ranks.size
        found = evaluate(self.model, self.data.eval_batches(together), self.precision, self.ranks)
        self.model.train()
        return found

    def state(self) -> dict[str, Any]:
        """Return everything needed to continue; plain containers and tensors only."""
        return {
            "step": self.step,
            "updates": self.updates,
            "skipped": self.skipped,
            "initial": self.initial,
            "source": self.data.source,
            "images": self.data.checksum,
            "facts": self.data.facts(),
            "model": self.model.state_dict(),
            "backends": [layer.backend for layer in self.layers],
            "layers": {layer.name: layer.state() for layer in self.layers},
            "optimizer": self.optimizer.state_dict(),
            "procedure": self.procedure.state(),
            "precision": self.precision.state(),
            "flops": self.flops.state(),
            "memory": self.memory.state(),
            "clock": self.clock.state(),
            "loss_sum": self.loss_sum,
            "epoch_seconds": self.epoch_seconds,
            "last": self.last,
            "early": self.early.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.step, self.updates, self.initial = state["step"], state["updates"], state["initial"]
        self.skipped = state["skipped"]
        self.model.load_state_dict(state["model"])
        for layer in self.layers:
            layer.load_state(state["layers"][layer.name])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # set in every step
        lay_out(self.optimizer)
        self.procedure.load_state(state["procedure"])
        self.precision.load_state(state["precision"])
        self.flops.load_state(state["flops"])
        self.memory.load_state(state["memory"])
        self.clock.load_state(state["clock"])
        self.loss_sum = state["loss_sum"].to(self.device)
        self.epoch_seconds = state["epoch_seconds"]
        self.last = state["last"]
        if "early" in state:  # checkpoints of older versions have none
            self.early.load_state(state["early"])

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss that training minimises, the mean over samples.

        Args:
            logits: (B, classes).
            y: (B,) int64.
        """
        if not isinstance(logits, Tensor):
            raise TypeError(f"the network returns a {type(logits).__name__} in training: it must return logits")
        if self.criterion is not None:
            return self.criterion(logits.float(), y)
        return functional.cross_entropy(logits.float(), y, label_smoothing=self.label_smoothing)
