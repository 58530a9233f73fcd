"""One run over several processes, each with a part of every batch.

They start with equal weights and topologies, which the seed gives, and stay equal: every gradient that is used is a
mean over processes, the same bits in all of them. The processes themselves are started by torchrun or SLURM.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dstrun.method.statistics import frozen_statistics
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Busy
from dstrun.system.ranks import ALONE, Made, Ranks
from dstrun.system.trouble import ConfigError

PATIENCE = timedelta(minutes=15)
"""How long a process waits for the others: for the slowest to load its data, or the first to write a checkpoint."""

FAREWELL = timedelta(seconds=20)
"""How long a process that has failed leaves the first to say so in the run's folder."""

LETTING_GO = 0.1
"""Seconds that gloo's threads have for letting go of the last tensors: one that asks Python for it while Python ends
aborts the process, finished run or not."""

PORTS = range(20_000, 30_000)
"""Where the processes of a SLURM job meet."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that its launcher has started.

    Attributes:
        rank: of it, from 0 on.
        size: how many there are.
        local: its number on its machine, from 0 on.
        address: of the machine of the first, and ``port``, where they meet.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    address: str = ""
    port: int = 0


def place(wanted: str | None, environment: Mapping[str, str] = os.environ) -> Place:
    """Read this process's place off what torchrun or SLURM's srun has set; torchrun's word goes first.

    Args:
        wanted: the setting ``distributed``.
        environment: of the process.

    Raises:
        ConfigError: several processes are wanted, and neither has started this one.
    """
    if wanted is None:
        return Place()
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        rank, size, local, port = (int(environment[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
        return Place(rank, size, local, environment["MASTER_ADDR"], port)
    if {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"} <= environment.keys():
        rank, size, local = (int(environment[f"SLURM_{k}"]) for k in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
        job, step = int(environment.get("SLURM_JOB_ID", 0)), int(environment.get("SLURM_STEP_ID", 0))
        port = int(environment.get("MASTER_PORT", PORTS[(job * 100 + step) % len(PORTS)]))
        return Place(rank, size, local, first_host(environment["SLURM_STEP_NODELIST"]), port)
    raise ConfigError(
        f"distributed={wanted} needs a process for every part of a batch: start them with "
        "torchrun --nproc-per-node N -m dstrun ..., or as N tasks of one step with SLURM's srun"
    )


def first_host(hosts: str) -> str:
    """Return the first name of SLURM's list of machines: ``gpu03`` of ``gpu[03-05,08],cpu1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    assert first is not None
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def join(here: Place) -> Ranks:
    """Meet the other processes, if there are any."""
    return Group(here) if here.size > 1 else ALONE


class Group(Ranks):
    """Several processes; what each asks, all ask, in the same order."""

    def __init__(self, here: Place) -> None:
        self.rank, self.size = here.rank, here.size
        os.environ |= {"MASTER_ADDR": here.address, "MASTER_PORT": str(here.port)}
        self.store, *_ = next(rendezvous("env://", here.rank, here.size, timeout=PATIENCE))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=PrefixStore("run", self.store), rank=self.rank, world_size=self.size,
            timeout=PATIENCE,
        )  # fmt: skip
        self._parallel: DistributedDataParallel | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Group:
        return self

    def average(self, tensor: Tensor) -> Tensor:
        """Average in place where memory allows it."""
        tensor = tensor.detach().contiguous()
        distributed.all_reduce(tensor)
        return tensor.div_(self.size)

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Add up in float64, on the CPU."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums.tolist()

    def any_rank(self, word: str | None) -> str | None:
        """Ask with one number, as nearly always nobody says anything."""
        spoken = torch.tensor(word is not None, dtype=torch.int32)
        distributed.all_reduce(spoken)
        if not spoken:
            return None
        words: list[str | None] = [None] * self.size
        distributed.all_gather_object(words, word)
        return next(word for word in words if word is not None)

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Send it to the others."""
        made: list[Any] = [make() if self.leads else None]
        distributed.broadcast_object_list(made, device=torch.device("cpu"))
        return made[0]

    def check_equal(self, numbers: Sequence[int], what: str) -> None:
        """Compare the least of each with the greatest."""
        bounds = torch.tensor([numbers, [~number for number in numbers]])
        distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
        if not torch.equal(bounds[0], ~bounds[1]):
            raise RuntimeError(f"{what} differ between the {self.size} processes of this run")

    def overlapped(self, model: nn.Module, trial: Callable[[nn.Module], Tensor]) -> nn.Module:
        """Return ``DistributedDataParallel``, made anew whenever a parameter has changed its shape."""
        if self._parallel is None or self._parallel.module is not model:
            self._parallel = self._wrap(model, trial)
        return self._parallel

    def deferred(self, model: nn.Module) -> AbstractContextManager[None]:
        """Defer DDP's exchange, if that is what is passed; the network itself averages nothing."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def reshaped(self) -> None:
        """Drop DDP at once: while it lives, backward passes expect the gradients of the old shapes."""
        self._parallel = None

    def _wrap(self, model: nn.Module, trial: Callable[[nn.Module], Tensor]) -> DistributedDataParallel:
        """Wrap the network, and try it out.

        After its first pass DDP sorts the gradients into buckets in the order in which they came, and the order of
        the processes' sums depends on the buckets. With a pass that counts for nothing the first that counts has the
        same ones, whether the run has just been continued or not.
        """
        device = next(model.parameters()).device
        named = inspect.signature(DistributedDataParallel).parameters
        new, old = "forward_sync_buffers", "broadcast_buffers"  # renamed in torch 2.15
        made = DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            init_sync=False,
            gradient_as_bucket_view=True,
            **{new if new in named else old: False},  # type: ignore[arg-type]
        )
        with frozen_statistics(model):
            trial(made).backward()
        model.zero_grad(set_to_none=True)
        return made

    def average_gradients(self, model: nn.Module) -> None:
        """Send all in one piece."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        means = self.average(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def bucket_bytes(self) -> int:
        """Count those of DDP, in which gradients lie."""
        if self._parallel is None:
            return 0
        return sum(p.nbytes for p in self._parallel.parameters())

    def leave(self, failed: bool) -> None:
        """End the others after the first: once one process ends badly, launchers kill the rest.

        What has failed lets go first, so that whoever waits for it learns of it.
        """
        if failed:
            distributed.destroy_process_group()
        if self.leads:
            self.store.set("left", "")
        else:
            with suppress(RuntimeError):  # it took too long, or has gone, and the store with it
                self.store.wait(["left"], FAREWELL if failed else PATIENCE)
        if not failed:
            distributed.destroy_process_group()
        time.sleep(LETTING_GO)


@contextmanager
def owned(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Lock the folder in the first process for all.

    Raises:
        Busy: to all, where another run holds it.
    """
    with ExitStack() as stack:

        def hold() -> str | None:
            try:
                stack.enter_context(folder.owned())
            except Busy as busy:
                return str(busy)
            return None

        if busy := ranks.broadcast(hold):
            raise Busy(busy)
        yield
