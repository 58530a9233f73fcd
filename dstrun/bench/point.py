"""One width of ``dstrun bench scaling`` with one implementation, in a process of its own.

``python -m dstrun.bench.point`` reads its case from the first line of its input, JSON, and answers with the bytes it
holds. To every further line it takes a training step and answers with the seconds; it ends with its input. So the
implementations take turns, and yet each has a memory peak of its own.

Shape letters: N samples, n units of every layer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dstrun.account.memory import tensor_bytes
from dstrun.bench.layout import csr, parts
from dstrun.bench.peer import Csr
from dstrun.layer.backend import backend
from dstrun.layer.initial import Initial, initial
from dstrun.layer.interface import prunable, skeleton

LAYERS = 3


class Network:
    """Three layers n -> n with ReLU between them, and its optimizer.

    Args:
        implementation: one of ``arguments.SCALED``; ``torch csr`` trains without momentum, which PyTorch has not there.
        n: units of every layer.
        degree: average connections of a unit; all of them where n is smaller.
        batch: N.
        device: ``cpu`` or ``cuda``.
        bf16: whether products are of bfloat16; the weights are float32.
        starts: of each layer; if ``None``, they are drawn one after another.
    """

    def __init__(
        self,
        implementation: str,
        n: int,
        degree: int,
        batch: int,
        device: str = "cpu",
        bf16: bool = False,
        starts: Iterable[Initial] | None = None,
    ) -> None:
        count = n * min(n, degree)
        starts = (initial((n, n), count, 0, index) for index in range(LAYERS)) if starts is None else starts
        self.device, self.bf16 = torch.device(device), bf16
        self.index: list[Tensor] = []
        self.x = torch.randn(batch, n, generator=torch.Generator().manual_seed(0)).to(device)
        if implementation == "torch csr":
            self.x = self.x.t().contiguous()
            matrices = [csr(start.topology, start.values.to(self.device)) for start in starts]
            self.model = nn.Sequential(*_between([Csr(matrix) for matrix in matrices]))
            self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3, foreach=False)
            return
        with skeleton():
            self.model = nn.Sequential(*_between([nn.Linear(n, n, bias=False) for _ in range(LAYERS)]))
        replace = backend(implementation).replace
        pairs = zip(list(prunable(self.model)), starts, strict=True)
        self.layers = [replace(self.model, name, module, start, self.device) for (name, module), start in pairs]
        self.index = [tensor for layer in self.layers for tensor in layer.index()]
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3, 0.9)

    def step(self) -> None:
        """Train on the batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.model(self.x).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for layer in getattr(self, "layers", ()):
            layer.confine_gradient()
        self.optimizer.step()

    def bytes(self) -> int:
        """Take a step and count weights, gradients, optimizer state, positions and what is saved for backward."""
        with _saved() as saved:
            self.step()
        states = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        parameters = list(self.model.parameters())
        held = [*parameters, *self.model.buffers(), *states, *self.index, *saved, self.x]
        held += [p.grad for p in parameters if p.grad is not None]
        return tensor_bytes(part for tensor in held for part in parts(tensor))


def predict(implementation: str, n: int, degree: int, batch: int) -> int:
    """Predict the resident peak of the process, or what it takes of a GPU, in bytes, before anything is built.

    Twelve times the activations of a layer, and by implementation: a masked layer holds weight, gradient, momentum and
    two masks for every pair of units, and a step turns one mask round; the others a few numbers a connection. Measured
    peaks came to 0.82 to 0.99 of it where it was more than 2 GB.
    """
    active = LAYERS * n * min(n, degree)
    start, activations = 1 << 30, 4 * LAYERS * batch * n * 4
    of_active = {"masked": 8, "torch csr": 56, "sparse": 24}[implementation] * active
    return start + activations + of_active + (14 * LAYERS * n * n + n * n if implementation == "masked" else 0)


def _between(layers: list[nn.Module]) -> list[nn.Module]:
    return [module for layer in layers for module in (layer, nn.ReLU())][:-1]


@contextmanager
def _saved() -> Iterator[list[Tensor]]:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def serve(lines: Iterator[str], answer: Callable[[Any], None]) -> None:
    """Build the case of the first line, then take a step for each that follows."""
    case = json.loads(next(lines))
    if (threads := case.pop("threads")) is not None:
        torch.set_num_threads(threads)
    network = Network(**case)
    network.step()
    answer({"bytes": network.bytes()})
    on_gpu = network.device.type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()  # of steps alone
    for _ in lines:
        wait()
        start = time.perf_counter()
        network.step()
        wait()
        answer({"seconds": time.perf_counter() - start, "resident": _resident(on_gpu)})


def _resident(on_gpu: bool) -> int | None:
    """Read the peak of what PyTorch has allocated on a GPU, or of the whole process so far, where Linux tells."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    serve(iter(sys.stdin.readline, ""), lambda it: (sys.stdout.write(json.dumps(it) + "\n"), sys.stdout.flush()))  # type: ignore[func-returns-value]
