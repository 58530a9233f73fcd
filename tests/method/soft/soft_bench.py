"""One linear layer of eight weights whose gradient is given, trained by a method as the training loop does it."""

from __future__ import annotations

import torch
from method_setting import setting
from torch import nn

from dstrun.backend.masked.layer import wrap
from dstrun.method.soft import powerprop
from dstrun.optimizer.sgd import SGD

WEIGHTS = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8]


class Soft:
    """The layer's input is the identity, so that the gradient of the weights it computes is the one given."""

    def __init__(
        self, method, gradient, *, weights=WEIGHTS, active=None, total=10, lr=1.0, momentum=0.0, decay=0.0, power=1.0,
        optimizer=None, strict=False,
    ) -> None:  # fmt: skip
        self.module = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.module.weight.copy_(torch.tensor(weights).view(2, 4))
        model = nn.Sequential(self.module)
        self.layers = wrap(model, torch.device("cpu"))
        (self.layer,) = self.layers
        powerprop.reparametrize(model, power)
        method.reparametrize(model, self.layers)
        option = optimizer or SGD(lr=lr, momentum=momentum, weight_decay=decay)
        self.optimizer = option.build(method.parameters(model, decay))
        self.layer.optimizer = self.optimizer
        counts = None if active is None else [active]
        more = {"model": model, "optimizer": self.optimizer, "total_steps": total, "counts": counts, "strict": strict}
        self.procedure = method.procedure(setting(self.layers, **more))
        self.gradient = torch.tensor(gradient, dtype=torch.float).view(2, 4)
        self.steps = 0

    def backward(self):
        """Run a step's forward and backward; the gradient of the stored weights stays."""
        loss = (self.module(torch.eye(4)) * self.gradient.T).sum()
        penalty = self.procedure.penalty(self.steps + 1)
        (loss if penalty is None else loss + penalty).backward()

    def step(self):
        """Take a step; give its update."""
        self.steps += 1
        before = self.procedure.before_step(self.steps)
        self.backward()
        assert self.procedure.after_backward(self.steps) is None
        self.layer.confine_gradient()
        for optimizer in (self.optimizer, *self.procedure.own):
            optimizer.step()
        after = self.procedure.after_step(self.steps)
        for optimizer in (self.optimizer, *self.procedure.own):
            optimizer.zero_grad()
        assert before is None
        return after

    @property
    def stored(self):
        """Return the weights stored."""
        return [round(value, 5) for value in self.layer.weight.detach().flatten().tolist()]

    @property
    def computed(self):
        """Return the weights the forward pass uses."""
        return [round(value, 5) for value in self.module.weight.detach().flatten().tolist()]

    @property
    def grad(self):
        """Return the gradient of the weights stored."""
        return [round(value, 5) for value in self.layer.dense_grad().tolist()]
