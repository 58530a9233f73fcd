"""A layer that gathers what its connections see, and adds up what they push."""

import torch
from torch import nn

from dstrun.backend.search import Proposes, best_of_all
from dstrun.layer.geometry import geometry
from dstrun.layer.growth import GrowthContext
from dstrun.layer.interface import carry
from dstrun.layer.topology import others
from dstrun.system.ranks import ALONE, Passes


class ListedLinear(Proposes, nn.Module):
    backend = "listed"

    def __init__(self, name, module, start, device):
        super().__init__()
        self.name, self.geometry, self.optimizer, self.ranks, self.passes = (
            name,
            geometry(module),
            None,
            ALONE,
            Passes(),
        )
        self.weight = nn.Parameter(start.values.to(device or "cpu"))
        self.bias = None if module.bias is None else nn.Parameter(start.bias.to(self.weight.device))
        self.topology = start.topology
        self.ever, self.asked = start.topology.positions, None

    @property
    def count(self):
        return self.topology.count

    def forward(self, x):
        outputs, inputs = self.geometry.shape
        o, i = self.topology.positions // inputs, self.topology.positions % inputs
        y = x.new_zeros(len(x), outputs).index_add(1, o, x[:, i] * self.weight)
        if self.asked is not None:
            y.register_hook(lambda delta: self.look(x.detach(), delta))
        return y if self.bias is None else y + self.bias

    def look(self, x, delta):
        asked, self.asked = self.asked, None
        self._found = best_of_all(asked.criterion, GrowthContext.of(self, asked, x, delta))

    def request_growth(self, request):
        self.asked = request

    def values(self):
        return self.weight.detach()

    def set_values(self, values):
        self.weight.data.copy_(values)

    def grad(self):
        return self.weight.grad

    def add_gradient(self, change):
        self.weight.grad.add_(change)

    def confine_gradient(self):
        pass

    def rewire(self, prune, grow):
        old, new = self.topology, self.topology.rewired(prune, grow)
        kept, place = others(old.positions, prune), others(new.positions, grow)

        def moved(tensor):
            return tensor.new_zeros(new.count).index_put_((place,), tensor[kept])

        carry(self, grow.numel() > 0, moved)
        self.weight.data, self.weight.grad = moved(self.weight.data), None
        self.topology, self.ever = new, torch.cat([self.ever, grow]).unique()

    def explored(self):
        return self.ever.numel() / self.topology.size

    def state(self):
        return {"positions": self.topology.positions, "ever": self.ever}

    def load_state(self, state):
        self.topology = type(self.topology)(self.topology.shape, state["positions"])
        self.ever = state["ever"]

    def index(self):
        return [self.topology.positions, self.ever]
