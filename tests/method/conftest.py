"""A network trained by a method, step by step, as the training loop does it."""

from dataclasses import dataclass, field

import pytest
import torch
from method_setting import setting
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.layer.interface import SparseLayer
from dstrun.layer.topology import Topology
from dstrun.method.dynamic.dst import DST
from dstrun.optimizer.sgd import SGD
from dstrun.prune.magnitude import Magnitude
from dstrun.schedule.constant import Constant
from dstrun.system.stream import stream


@dataclass
class Bench:
    """Linear layers whose weight gradients are given: each layer's input is the identity, so that dL/dW = G."""

    layers: list[SparseLayer]
    gradients: list[torch.Tensor]
    optimizer: torch.optim.Optimizer
    steps: int = 0
    fresh: list[tuple[int, int]] = field(default_factory=list)

    def backward(self) -> None:
        for layer, gradient in zip(self.layers, self.gradients, strict=True):
            y = layer.module(torch.eye(layer.topology.shape[1]))
            (y * gradient.T).sum().backward()

    def fresh_pass(self, step: int, samples: int) -> int:
        self.fresh.append((step, samples))
        self.backward()
        self.optimizer.zero_grad()
        return samples

    def start(self, grow, *, fraction=0.5, scope="layer", seed=0, prune=None, schedule=None, total=100, **method):
        if schedule is None:
            schedule = Constant(fraction=fraction, end=1, interval_steps=1)
        parts = {"prune": prune or Magnitude(), "grow": grow, "schedule": schedule}
        run = {"scope": scope, "total_steps": total, "seed": seed, "fresh_pass": self.fresh_pass}
        self.procedure = DST(**method).procedure(setting(self.layers, **parts, **run))
        return self

    def step(self):
        """Take a step; give the update and after which hook it came."""
        self.steps += 1
        updates = {"before": self.procedure.before_step(self.steps)}
        self.backward()
        updates["instead"] = self.procedure.after_backward(self.steps)
        if updates["instead"] is None:
            for layer in self.layers:
                layer.confine_gradient()
            self.optimizer.step()
        updates["after"] = self.procedure.after_step(self.steps)
        self.optimizer.zero_grad()
        ((hook, update),) = [(h, u) for h, u in updates.items() if u is not None] or [(None, None)]
        return hook, update

    def weights(self, index=0):
        """Return a layer's active weights, {position: value}."""
        layer = self.layers[index]
        pairs = zip(layer.topology.positions.tolist(), layer.values().tolist(), strict=True)
        return {position: round(value, 6) for position, value in pairs}

    def momentum(self, index=0):
        """Return a layer's momentum, all positions."""
        weight = self.layers[index].module.weight
        return self.optimizer.state[weight]["momentum_buffer"].flatten()


@pytest.fixture
def bench():
    """Make a bench from the active weights of each layer, {position: value}, and the gradients of all positions."""

    def bench(*layers, shape=(2, 4), lr=0.1, momentum=0.0):
        made, gradients = [], []
        for index, (weights, gradient) in enumerate(layers):
            module = nn.Linear(shape[1], shape[0], bias=False)
            layer = MaskedLayer(f"fc{index}", module, Topology(shape, torch.tensor(sorted(weights))))
            layer.set_values(torch.tensor([weights[position] for position in sorted(weights)]))
            made.append(layer)
            gradients.append(torch.tensor(gradient, dtype=torch.float).view(shape))
        parameters = [layer.module.weight for layer in made]
        optimizer = SGD(lr=lr, momentum=momentum, weight_decay=0).build(parameters)
        for layer in made:
            layer.optimizer = optimizer
        return Bench(made, gradients, optimizer)

    return bench


@pytest.fixture
def random_bench(bench):
    """Make a bench of layers with random weights and gradients, of as many active connections as counted."""

    def random_bench(counts, shape=(4, 6), seed=0):
        generator = torch.Generator().manual_seed(stream(seed, "bench"))
        size = shape[0] * shape[1]
        layers = []
        for count in counts:
            positions = Topology.random(shape, count, generator).positions.tolist()
            values = torch.randn(count, generator=generator).tolist()
            layers.append((dict(zip(positions, values, strict=True)), torch.randn(size, generator=generator).tolist()))
        return bench(*layers, shape=shape)

    return random_bench
