"""``dstrun bench kernel``: the three products of single layers, dense and sparse, timed in turns.

Every implementation gets the same connections and numbers, in the memory layout it likes best, laid out beforehand;
biases are left out. Shape letters: A active connections, O outputs, I inputs, N samples, P items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dstrun.account.memory import tensor_bytes
from dstrun.allocation.budget import budget
from dstrun.backend.sparse.kernel import kernel_for
from dstrun.backend.sparse.pattern import Pattern
from dstrun.bench.arguments import Kernel
from dstrun.bench.layout import coo, csr, parts
from dstrun.bench.measure import Passes, interleaved, rows
from dstrun.bench.peer import PEERS
from dstrun.bench.result import machine
from dstrun.bench.shapes import Shape, find
from dstrun.layer.geometry import ConvGeometry, Geometry, LinearGeometry
from dstrun.layer.initial import initial
from dstrun.layer.topology import Topology
from dstrun.system.progress import say

FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"


@dataclass(frozen=True)
class Problem:
    """One layer at one sparsity, with a batch.

    Attributes:
        geometry: of the layer.
        topology: its active connections, drawn at random.
        values: (A,) their weights.
        x: input, (N, C, H, W) or (P, I).
        delta: gradient of the output, (N, O, H, W) or (P, O).
    """

    geometry: Geometry
    topology: Topology
    values: Tensor
    x: Tensor
    delta: Tensor

    def dense(self) -> Tensor:
        """Fill the connections into a dense weight."""
        weight = self.values.new_zeros(self.topology.size)
        weight[self.topology.positions] = self.values
        return weight.view(self.geometry.shape)


@dataclass(frozen=True)
class Implementation:
    """The passes of one implementation, and what it stores of the weight."""

    passes: Passes
    stored: list[Tensor]


def problem(shape: Shape, sparsity: float, batch: int, device: torch.device) -> Problem:
    """Draw a layer and a batch for it: the same for the same arguments."""
    size = torch.Size(shape.weight).numel()
    start = initial(shape.weight, max(1, budget(size, sparsity)), 0, 0)
    geometry: Geometry = LinearGeometry(shape.weight)
    lead, sides = (batch * shape.items,), ()
    if shape.side:
        geometry = ConvGeometry(shape.weight, 1, (1, 1), (1, 1), (1, 1))
        lead, sides = (batch,), (shape.side, shape.side)
    generator = torch.Generator().manual_seed(0)
    x, delta = (torch.randn(*lead, n, *sides, generator=generator) for n in (shape.inputs, shape.outputs))
    return Problem(geometry, start.topology, start.values.to(device), x.to(device), delta.to(device))


def products(geometry: Geometry, x: Tensor, delta: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Return the dense products as functions of the weight, without autograd's share."""
    if isinstance(geometry, ConvGeometry):
        g = geometry
        settings = (None, g.stride, g.padding, g.dilation, False, (0, 0), g.groups)
        back = torch.ops.aten.convolution_backward
        return (
            lambda w: functional.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups),
            lambda w: back(delta, x, w, *settings, (True, False, False))[0],
            lambda w: back(delta, x, w, *settings, (False, True, False))[1],
        )
    return lambda w: functional.linear(x, w), lambda w: delta @ w, lambda w: delta.t() @ x


def dense(given: Problem, layout: torch.memory_format = torch.contiguous_format) -> Implementation:
    """Compute with the dense weight, zeros and all."""
    weight, x, delta = (tensor.contiguous(memory_format=layout) for tensor in (given.dense(), given.x, given.delta))
    forward, back, gradient = products(given.geometry, x, delta)
    passes = {FORWARD: lambda: forward(weight), INPUT: lambda: back(weight), WEIGHT: lambda: gradient(weight)}
    return Implementation(passes, [weight])


def masked(given: Problem) -> Implementation:
    """Multiply the weight by its mask first and its gradient afterwards, as training with masks does."""
    layout = torch.channels_last if isinstance(given.geometry, ConvGeometry) else torch.contiguous_format
    weight, x, delta = (tensor.contiguous(memory_format=layout) for tensor in (given.dense(), given.x, given.delta))
    mask = (weight != 0).to(weight)
    forward, back, gradient = products(given.geometry, x, delta)
    product = weight * mask  # autograd keeps it for the backward pass
    passes = {
        FORWARD: lambda: forward(weight * mask),
        INPUT: lambda: back(product),
        WEIGHT: lambda: gradient(product) * mask,
    }
    return Implementation(passes, [weight, mask, product])


def torch_coo(given: Problem) -> Implementation:
    """Use PyTorch's COO matrices, with the transposed matrix at hand, which autograd would have to make.

    PyTorch has no product for the gradient at COO's positions alone: autograd forms the dense gradient and picks from
    it. The backward pass of ``embedding_bag`` computes the same numbers, a dot product for each pair of row and column,
    without a dense gradient, and is the fastest that PyTorch has for such pairs: at 4096 x 4096, 128 samples and 90 %
    it took 18 ms, the dense gradient and picking 30, gathering rows in blocks and multiplying them 48.
    """
    matrix = coo(given.topology, given.values)
    transposed = coo(given.topology, given.values, transposed=True)
    x, delta = given.x.t().contiguous(), given.delta.t().contiguous()
    rows, columns = matrix.indices()
    start = rows.new_zeros(1)  # the operator asks where bags begin, and reads only which row is whose
    pairs = torch.ops.aten._embedding_bag_per_sample_weights_backward
    passes = {
        FORWARD: lambda: torch.sparse.mm(matrix, x),
        INPUT: lambda: torch.sparse.mm(transposed, delta),
        WEIGHT: lambda: pairs(delta, x, columns, start, rows, 0),  # 0: sums
    }
    return Implementation(passes, [*parts(matrix), *parts(transposed)])


def torch_csr(given: Problem) -> Implementation:
    """Use PyTorch's CSR matrices, with the transposed matrix at hand, which autograd would have to make."""
    matrix = csr(given.topology, given.values)
    transposed = csr(given.topology, given.values, transposed=True)
    x, delta = given.x.t().contiguous(), given.delta.t().contiguous()
    passes = {
        FORWARD: lambda: torch.sparse.mm(matrix, x),
        INPUT: lambda: torch.sparse.mm(transposed, delta),
        WEIGHT: lambda: torch.sparse.sampled_addmm(matrix, delta, x.t(), beta=0),
    }
    return Implementation(passes, [*parts(matrix), *parts(transposed)])


def sparse(given: Problem, name: str | None = None) -> Implementation:
    """Use the kernels of the sparse backend, by name or the fastest; activations lie batch-innermost."""
    pattern, values = Pattern(given.geometry, given.topology, given.values.device), given.values
    if isinstance(given.geometry, ConvGeometry):
        geometry = given.geometry
        x, delta = (tensor.permute(1, 2, 3, 0).contiguous() for tensor in (given.x, given.delta))
    else:
        geometry = given.geometry.as_convolution()
        x, delta = (tensor.t().contiguous()[:, None, None] for tensor in (given.x, given.delta))
    kernel = kernel_for(geometry, x, name)
    size = (x.shape[1], x.shape[2])
    passes = {
        FORWARD: lambda: kernel.forward(geometry, pattern, values, None, x),
        INPUT: lambda: kernel.input_gradient(geometry, pattern, values, delta, size),
        WEIGHT: lambda: kernel.weight_gradient(geometry, pattern.rows, pattern.inputs, x, delta),
    }
    return Implementation(passes, [values, *pattern.tensors()])


def implementations(given: Problem, reference: bool = False) -> dict[str, Implementation]:
    """Set up everything that computes this layer here; peers that are not installed or refuse it are left out.

    So is the sparse backend for a convolution on a GPU, which has no kernel for it, unless the reference is asked for.
    """
    convolution = isinstance(given.geometry, ConvGeometry)
    made = {"dense": dense(given)}
    if convolution:
        made["dense channels_last"] = dense(given, torch.channels_last)
    made["masked"] = masked(given)
    if not convolution:
        made["torch coo"] = torch_coo(given)
        made["torch csr"] = torch_csr(given)
    if not convolution or given.x.device.type == "cpu":
        made["sparse"] = sparse(given)
    if reference:
        made["sparse reference"] = sparse(given, "reference")
    for name, peer in PEERS.items():
        if (found := peer.setup(given.geometry, given.dense, given.x, given.delta)) is not None:
            made[name] = Implementation(*found)
    return made


def measure(settings: Kernel) -> Iterator[list[dict[str, Any]]]:
    """Time every layer at every sparsity; yields the rows of each."""
    where, device = machine(settings.device, settings.threads), torch.device(settings.device)
    for peer in PEERS.values():
        if not peer.installed():
            say(f"{peer.package} is not installed: not compared")
    for layer in settings.layers:
        for sparsity in settings.sparsity:
            case = {"bench": "kernel", "layer": layer, "sparsity": sparsity, "batch": settings.batch}
            with torch.no_grad():
                made = implementations(problem(find(layer), sparsity, settings.batch, device), settings.reference)
                timed = interleaved(
                    {name: each.passes for name, each in made.items()}, settings.rounds, settings.limit, waiter(device)
                )
            found = [
                {**case, **row, "bytes": tensor_bytes(made[row["implementation"]].stored), **where}
                for row in rows(timed)
            ]
            sums = {row["implementation"]: f"{1000 * row['median']:.2f} ms" for row in found if row["pass"] == "sum"}
            say(f"{layer} at {100 * sparsity:g}%: {sums.get('sparse', 'no sparse kernel on a GPU')}")
            yield found


def waiter(device: torch.device) -> Callable[[], object]:
    """Return what waits until a device is done."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None
