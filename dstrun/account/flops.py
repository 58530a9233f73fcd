"""FLOPs, counted: RigL's convention (Evci et al. 2020).

A multiply and an add are two FLOPs; linear and convolution layers count, zero weights do not; a training step costs
three forward passes (outputs, input gradients, weight gradients). Biases, normalization, activations, loss, sampling
and ranking are left out; attention products are reported apart. *Algorithmic* is what the method claims; *executed*
is what the backend really computes, less the input gradient of the first layer: for ``masked`` the dense products, for
``sparse`` those of the connections whose products were taken.
All counts are exact integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dstrun.geometry import ConvGeometry, geometry
from dstrun.grow.criterion import Cost
from dstrun.layer import prunable, sharing
from dstrun.method.procedure import Products

if TYPE_CHECKING:
    from dstrun.grow.criterion import GrowCriterion
    from dstrun.method.procedure import Update

CONVENTION = (
    "2 FLOPs a multiply-add; linear and convolution layers, zero weights excluded; a training step is 3 forwards"
)


@dataclass(frozen=True)
class LayerCost:
    """What one prunable layer costs.

    Attributes:
        name: the module's path.
        shape: of the dense weight.
        uses: how often each connection is used for one sample, in one forward pass.
        first: whether its input is the network's, which needs no gradient.
        sees: shape of its input for one sample.
    """

    name: str
    shape: tuple[int, ...]
    uses: int
    first: bool
    sees: tuple[int, ...] = ()

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
    """

    layers: list[LayerCost]
    attention: int
    others: int = 0

    def forward(self, active: Sequence[int] | None = None) -> int:
        """Count the FLOPs of one sample's forward pass with so many active connections a layer (dense if ``None``)."""
        counts = [layer.size for layer in self.layers] if active is None else active
        return sum(2 * count * layer.uses for count, layer in zip(counts, self.layers, strict=True))

    def aggregation(self) -> int:
        """Count the FLOPs of one sample's input sums, each a convolution with one output: forward / outputs."""
        return sum(2 * layer.macs // layer.shape[0] for layer in self.layers)

    def executed(self, backends: Sequence[str], products: Products) -> int:
        """Count the FLOPs really done for one sample, forward and backward.

        Args:
            backends: which stores each layer; any but ``sparse`` computes densely.
            products: connections of each layer in each product.
        """
        total = 0
        counts = zip(products.forward, products.input_gradient, products.weight_gradient, strict=True)
        for layer, backend, (forward, inputs, weights) in zip(self.layers, backends, counts, strict=True):
            if backend != "sparse":
                forward = inputs = weights = layer.size
            total += 2 * layer.uses * (forward + (0 if layer.first else inputs) + weights)
        return total


def network_cost(model: nn.Module, image: tuple[int, int, int]) -> NetworkCost:
    """Count how often each connection is used, by one forward pass of one sample on the meta device.

    Args:
        model: on the meta device.
        image: (C, H, W) of the input.
    """
    uses: dict[str, int] = {}
    first: dict[str, bool] = {}
    sees: dict[str, tuple[int, ...]] = {}

    def hook(name: str):
        def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            convolution = isinstance(geometry(module), ConvGeometry)
            items = output[0, 0].numel() if convolution else output.numel() // output.shape[-1]
            uses[name] = uses.get(name, 0) + items
            first[name] = not inputs[0].requires_grad
            sees.setdefault(name, tuple(inputs[0].shape[1:]))

        return count

    layers = prunable(model)
    users = [(name, [module, *sharing(model, module)]) for name, module in layers]
    hooks = [
        module.register_forward_hook(hook(name))
        for name, modules in users
        for module in modules
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *image, device="meta"))
    model.train(was_training)
    for handle in hooks:
        handle.remove()
    costs = [
        LayerCost(name, tuple(module.weight.shape), uses[name], first[name], sees[name]) for name, module in layers
    ]
    prunable_weights = {id(module.weight) for _, module in layers}
    others = sum(p.numel() for p in model.parameters() if id(p) not in prunable_weights)
    return NetworkCost(costs, counter.get_total_flops() - NetworkCost(costs, 0).forward(), others)


def update_extra(cost: NetworkCost, grow: Cost, aggregates: bool, candidates: Sequence[int]) -> int:
    """Count one sample's FLOPs for scoring candidates: their weight gradients, and the sums they are drawn from."""
    if grow is Cost.NONE:
        return 0
    if grow is Cost.DENSE_GRAD:
        return cost.forward()
    return cost.forward(candidates) + (cost.aggregation() if aggregates else 0)


def paper_ratio(grow: Cost, sparse: float, dense: float, interval: float, gamma: float = 1.0) -> float:
    """Give a method's training cost relative to dense training, by the formula of its paper.

    Args:
        grow: what the grow criterion needs.
        sparse: f_S, forward cost of the sparse network.
        dense: f_D, of the dense one.
        interval: steps between updates, DT.
        gamma: GSE's subset size relative to the active connections.

    Returns:
        3 f_S without gradients for growth; (3 f_S DT + 2 f_S + f_D) / (DT + 1) with the dense gradient; with the
        candidates' (3 f_S DT + 2 f_S + gamma f_S) / (DT + 1); each divided by 3 f_D.
    """
    extra = {Cost.NONE: sparse, Cost.DENSE_GRAD: dense, Cost.CANDIDATE_GRAD: gamma * sparse}[grow]
    return (3 * sparse * interval + 2 * sparse + extra) / (interval + 1) / (3 * dense)


class FlopMeter:
    """Adds up a run's training FLOPs as its topology changes.

    Args:
        cost: of the network.
        grow: the grow criterion, if any.
        backends: which stores each layer; all ``masked`` if ``None``.
        built: what is trained, where a method builds another network than the one that is compared with.
    """

    def __init__(
        self,
        cost: NetworkCost,
        grow: GrowCriterion | None,
        backends: Sequence[str] | None = None,
        built: NetworkCost | None = None,
    ) -> None:
        self.cost, self.built = cost, built or cost
        self.backends = backends or ["masked"] * len(cost.layers)
        self.aggregates = grow is not None and grow.aggregates
        self.train = 0
        self.executed = 0
        self.samples = 0

    def scored(self, update: Update, products: Products) -> None:
        """Add samples passed forward and backward to score active connections, before these were pruned.

        Args:
            update: after it.
            products: what is computed where the update tells of no layer.
        """
        before = _before(update) or products.forward
        self.train += 3 * update.samples * self.cost.forward(before)
        self.executed += update.samples * self.built.executed(self.backends, Products.of(before))

    def step(self, samples: int, products: Products, updates: Sequence[Update]) -> None:
        """Add one step.

        Args:
            samples: in the batch.
            products: connections of each layer in each of the step's products.
            updates: of the topology in this step.
        """
        self.samples += samples
        weight_gradient = self.cost.forward(products.weight_gradient)
        for update in updates:
            candidates = self._scored(update)
            extra = update_extra(self.cost, update.cost, self.aggregates, [c.candidates for c in update.changes])
            sums = self.cost.aggregation() if self.aggregates else 0
            if update.replaces_step:
                weight_gradient, products = extra, dataclasses.replace(products, weight_gradient=candidates)
                self.executed += samples * sums
            elif update.cost is Cost.NONE:
                self.scored(update, products)
            elif update.samples:
                fresh = Products.of(_before(update), candidates)
                self.train += update.samples * (2 * self.cost.forward(fresh.forward) + extra)
                self.executed += update.samples * (self.built.executed(self.backends, fresh) + sums)
        passes = self.cost.forward(products.forward) + self.cost.forward(products.input_gradient)
        self.train += samples * (passes + weight_gradient)
        self.executed += samples * self.built.executed(self.backends, products)

    def _scored(self, update: Update) -> list[int]:
        """Count the connections of each layer whose gradients an update takes; the dense gradient has blocked ones."""
        if update.cost is Cost.DENSE_GRAD:
            return [layer.size for layer in self.cost.layers]
        return [change.candidates for change in update.changes]

    def record(self, active: Sequence[int], nominal: int) -> dict[str, Any]:
        """Give the record's ``flops`` group for the final topology; ``nominal`` samples make one training."""
        return flops_record(self.cost, active, self.train, self.executed, nominal)

    def state(self) -> dict[str, int]:
        """Give the sums, for a checkpoint."""
        return {"train": self.train, "executed": self.executed, "samples": self.samples}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from a checkpoint's sums."""
        self.train, self.executed, self.samples = state["train"], state["executed"], state["samples"]


def _before(update: Update) -> list[int]:
    """Count the active connections of each layer before an update."""
    return [change.active + change.pruned - change.grown for change in update.changes]


def flops_record(cost: NetworkCost, active: Sequence[int], train: int, executed: int, samples: int) -> dict[str, Any]:
    """Give the ``flops`` group that records and plans share: whole run; inference for one sample.

    ``samples`` are those of one training: a method that trains several times costs more than 1 x dense.
    """
    inference, dense = cost.forward(active), cost.forward()
    return {
        "inference": inference,
        "inference_x_dense": inference / dense,
        "train": train,
        "train_x_dense": train / (3 * dense * samples),
        "executed_train": executed,
        "executed_x_dense": executed / (3 * dense * samples),
        "attention_inference": cost.attention,
        "convention": CONVENTION,
    }
