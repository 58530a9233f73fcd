"""FLOP counting, in the convention of RigL (Evci et al. 2020).

A multiply and an add are two FLOPs; products with weights count, of layers that can be pruned and of all others, and
zero weights do not; a training step costs three forward passes (outputs, input gradients, weight gradients). Biases,
normalization, activations, loss, sampling and ranking are left out; attention products are reported apart.
*Algorithmic* is what the method claims; *executed* is what the backend really computes, less the input gradient of the
first layer: the dense products, or those of the connections whose products were taken where it skips zeros.
All counts are exact integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dstrun.account.survey import Survey, survey
from dstrun.account.unpruned import Unpruned, unpruned
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import prunable, sharing, stored
from dstrun.method.update import ProductCounts

if TYPE_CHECKING:
    from dstrun.layer.criterion import GrowCriterion
    from dstrun.method.update import Update

CONVENTION = (
    "2 FLOPs a multiply-add; linear and convolution layers, zero weights excluded; a training step is 3 forwards"
)
FIXED = "; products with weights that are not prunable included, as dense in both"


@dataclass(frozen=True)
class LayerCost:
    """What one prunable layer costs.

    Attributes:
        name: the module's path.
        shape: of the dense weight.
        uses: how often each connection is used for one sample, in one forward pass.
        first: whether its input is the network's, which needs no gradient.
        sees: shape of its input for one sample.
        again: whether its outputs are computed again in a training step's backward pass (``checkpointing``).
    """

    name: str
    shape: tuple[int, ...]
    uses: int
    first: bool
    sees: tuple[int, ...] = ()
    again: bool = False

    @property
    def size(self) -> int:
        """Connections of the dense layer."""
        return int(torch.Size(self.shape).numel())

    @property
    def macs(self) -> int:
        """Multiply-adds of a dense forward pass for one sample."""
        return self.size * self.uses


@dataclass(frozen=True)
class NetworkCost:
    """The prunable layers in order.

    Attributes:
        layers: in the order of ``named_modules``.
        attention: what attention products add to a sample's forward pass.
        others: parameters that are not prunable.
        fixed: FLOPs of a sample's forward pass in products with weights that are not prunable.
        fixed_executed: of these forward and backward, where only the gradients that are needed are computed.
        unpruned: what is not prunable, by module.
    """

    layers: list[LayerCost]
    attention: int
    others: int = 0
    fixed: int = 0
    fixed_executed: int = 0
    unpruned: tuple[Unpruned, ...] = ()

    @property
    def parameters(self) -> int:
        """Count every parameter of the dense network."""
        return self.others + sum(layer.size for layer in self.layers)

    def forward(self, active: Sequence[int] | None = None) -> int:
        """Count the FLOPs of one sample's forward pass with so many active connections a layer (dense if ``None``)."""
        counts = [layer.size for layer in self.layers] if active is None else active
        return self.fixed + sum(2 * count * layer.uses for count, layer in zip(counts, self.layers, strict=True))

    def aggregation(self) -> int:
        """Count the FLOPs of one sample's input sums, each a convolution with one output: forward / outputs."""
        return sum(2 * layer.macs // layer.shape[0] for layer in self.layers)

    def executed(self, skips: Sequence[bool], products: ProductCounts) -> int:
        """Count the FLOPs really done for one sample, forward and backward.

        Args:
            skips: whether each layer's products skip zeros (``Backend.skips_zeros``); else they are dense.
            products: connections of each layer in each product.
        """
        total = self.fixed_executed
        counts = zip(products.forward, products.input_gradient, products.weight_gradient, strict=True)
        for layer, skip, (forward, inputs, weights) in zip(self.layers, skips, counts, strict=True):
            if not skip:
                forward = inputs = weights = layer.size
            total += 2 * layer.uses * (forward * (1 + layer.again) + (0 if layer.first else inputs) + weights)
        return total


def network_cost(model: nn.Module, image: tuple[int, int, int], seen: Survey | None = None) -> NetworkCost:
    """Count how often each connection is used, by one forward pass of one sample on the meta device.

    Args:
        model: on the meta device; marked by the survey.
        image: (C, H, W) of the input.
        seen: what a survey has shown of it; it is made where there is none.
    """
    seen = seen or survey(model, image)
    layers, names = prunable(model), {id(p): name for name, p in model.named_parameters()}
    weights = {names[id(stored(module))]: module for _, module in layers}
    paths = {id(module): name for name, module in model.named_modules()}
    flops, rest = dict.fromkeys(weights, 0), []
    for product in seen.products:
        of = product.owners & weights.keys()
        whole = len(of) == 1 and product.flops % (2 * weights[min(of)].weight.numel()) == 0
        if whole:
            flops[min(of)] += product.flops
        else:
            rest.append(product)
    costs = []
    for (name, module), total in zip(layers, flops.values(), strict=True):
        together = (name, *(paths[id(m)] for m in sharing(model, module)))
        calls = [seen.calls[path] for path in together if path in seen.calls]
        uses = total // (2 * module.weight.numel())
        costs.append(LayerCost(name, tuple(module.weight.shape), uses, calls[-1].first, calls[0].sees))
    others = sum(p.numel() for name, p in model.named_parameters() if name not in weights)
    fixed, executed = sum(p.flops for p in rest), sum(p.executed for p in rest)
    return NetworkCost(costs, seen.attention, others, fixed, executed, tuple(unpruned(model, seen, rest)))


def update_extra(cost: NetworkCost, grow: Cost, aggregates: bool, candidates: Sequence[int]) -> int:
    """Count one sample's FLOPs for scoring candidates: their weight gradients, and the sums they are drawn from."""
    if grow is Cost.NONE:
        return 0
    if grow is Cost.DENSE_GRAD:
        return cost.forward()
    return cost.forward(candidates) + (cost.aggregation() if aggregates else 0)


def paper_ratio(grow: Cost, sparse: float, dense: float, interval: float, candidates: float = 0.0) -> float:
    """Return a method's training cost relative to dense training, by the formula of its paper.

    Args:
        grow: what the grow criterion needs.
        sparse: f_S, forward cost of the sparse network.
        dense: f_D, of the dense one.
        interval: steps between updates, DT.
        candidates: f_C, of one that has the candidates for connections: gamma f_S for GSE.

    Returns:
        3 f_S without gradients for growth; (3 f_S DT + 2 f_S + f_D) / (DT + 1) with the dense gradient; with the
        candidates' (3 f_S DT + 2 f_S + f_C) / (DT + 1); each divided by 3 f_D.
    """
    extra = {Cost.NONE: sparse, Cost.DENSE_GRAD: dense, Cost.CANDIDATE_GRAD: candidates}[grow]
    return (3 * sparse * interval + 2 * sparse + extra) / (interval + 1) / (3 * dense)


class FlopMeter:
    """Adds up a run's training FLOPs as its topology changes.

    Args:
        cost: of the network.
        grow: the grow criterion, if any.
        skips: whether each layer's products skip zeros; none do if ``None``.
        built: what is trained, where a method builds another network than the one that is compared with.
        split: whether a batch takes several passes: what candidates are drawn from is then summed in passes beforehand.
    """

    def __init__(
        self,
        cost: NetworkCost,
        grow: GrowCriterion | None,
        skips: Sequence[bool] | None = None,
        built: NetworkCost | None = None,
        split: bool = False,
    ) -> None:
        self.cost, self.built = cost, built or cost
        self.skips = skips or [False] * len(cost.layers)
        self.aggregates = grow is not None and grow.aggregates
        self.split = split
        self._train = 0
        self.executed = 0
        self.samples = 0
        self._unread: Tensor | None = None
        self._unread_samples = 0

    @property
    def train(self) -> int:
        """Count the FLOPs so far; reads what a device has counted."""
        if self._unread is not None:
            sums, samples = self._unread.tolist(), self._unread_samples
            self._train += sum(map(self.cost.forward, sums)) + len(sums) * (samples - 1) * self.cost.fixed
            self._unread, self._unread_samples = None, 0
        return self._train

    def scored(self, update: Update, products: ProductCounts) -> None:
        """Add samples passed forward and backward to score active connections, before these were pruned.

        Args:
            update: after it.
            products: what is computed where the update tells of no layer.
        """
        before = _before(update) or products.forward
        self._train += 3 * update.samples * self.cost.forward(before)
        self.executed += update.samples * self.built.executed(self.skips, ProductCounts.of(before))

    def step(self, samples: int, products: ProductCounts | Tensor, updates: Sequence[Update]) -> None:
        """Add one step.

        Args:
            samples: in the batch.
            products: connections of each layer in each of the step's products; counted on a device, (3, L) int64, they
                are read when somebody asks, if there is no update and no layer whose executed FLOPs follow from them.
            updates: of the topology in this step.
        """
        self.samples += samples
        if isinstance(products, Tensor):
            if not updates and not any(self.skips):
                self._read_later(samples, products)
                return
            products = ProductCounts(*products.tolist())
        weight_gradient = self.cost.forward(products.weight_gradient)
        for update in updates:
            candidates = self._scored(update)
            extra = update_extra(self.cost, update.cost, self.aggregates, [c.candidates for c in update.changes])
            sums = self.cost.aggregation() if self.aggregates else 0
            if self.aggregates and self.split:
                without = dataclasses.replace(products, weight_gradient=[0] * len(products.forward))
                sums += self.built.executed(self.skips, without)
            if update.replaces_step:
                weight_gradient, products = extra, dataclasses.replace(products, weight_gradient=candidates)
                self.executed += samples * sums
            elif update.cost is Cost.NONE:
                self.scored(update, products)
            elif update.samples:
                fresh = ProductCounts.of(_before(update), candidates)
                self._train += update.samples * (2 * self.cost.forward(fresh.forward) + extra)
                self.executed += update.samples * (self.built.executed(self.skips, fresh) + sums)
        passes = self.cost.forward(products.forward) + self.cost.forward(products.input_gradient)
        self._train += samples * (passes + weight_gradient)
        self.executed += samples * self.built.executed(self.skips, products)

    def _read_later(self, samples: int, products: Tensor) -> None:
        """Add a step's products to the sums that stay on the device."""
        self._unread = samples * products if self._unread is None else self._unread.add_(products, alpha=samples)
        self._unread_samples += samples
        dense = ProductCounts.of([layer.size for layer in self.built.layers])
        self.executed += samples * self.built.executed(self.skips, dense)

    def _scored(self, update: Update) -> list[int]:
        """Count the connections of each layer whose gradients an update takes; the dense gradient has blocked ones."""
        if update.cost is Cost.DENSE_GRAD:
            return [layer.size for layer in self.cost.layers]
        return [change.candidates for change in update.changes]

    def record(self, active: Sequence[int], nominal: int) -> dict[str, Any]:
        """Return the record's ``flops`` group for the final topology; ``nominal`` samples make one training."""
        return flops_record(self.cost, active, self.train, self.executed, nominal)

    def state(self) -> dict[str, int]:
        """Return the sums, for a checkpoint."""
        return {"train": self.train, "executed": self.executed, "samples": self.samples}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from a checkpoint's sums."""
        self._train, self.executed, self.samples = state["train"], state["executed"], state["samples"]
        self._unread, self._unread_samples = None, 0


def _before(update: Update) -> list[int]:
    """Count the active connections of each layer before an update."""
    return [change.active + change.pruned - change.grown for change in update.changes]


def flops_record(cost: NetworkCost, active: Sequence[int], train: int, executed: int, samples: int) -> dict[str, Any]:
    """Return the ``flops`` group that records and plans share: whole run; inference for one sample.

    ``samples`` are those of one training: a method that trains several times costs more than 1 x dense.
    """
    inference, dense = cost.forward(active), cost.forward()
    return {
        "inference": inference,
        "inference_x_dense": inference / dense,
        "fixed_inference": cost.fixed,
        "train": train,
        "train_x_dense": train / (3 * dense * samples),
        "executed_train": executed,
        "executed_x_dense": executed / (3 * dense * samples),
        "attention_inference": cost.attention,
        "convention": CONVENTION + (FIXED if cost.fixed else ""),
    }
