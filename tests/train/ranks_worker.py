"""One process of several: what ``test_distributed`` starts, and does itself in a single one."""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from dstrun.config.composition import compose
from dstrun.run import lifecycle
from dstrun.run.assemble import assemble
from dstrun.system.ranks import Ranks
from dstrun.train import distributed, fit

COMMON = ["dataset=digits", "device=cpu", "wandb=disabled", "threads=1", "sparsity=0.8", "optimizer.lr=0.05"]
COMMON += ["epochs=1", "batch_size=48"]
GROWTH = {
    "set": ["method=set"],
    "rigl": ["method=rigl"],
    "uniform": ["method=gse", "subset=uniform"],
    "grabo": ["method=gse", "subset=grabo"],
    "graest": ["method=gse", "subset=graest"],
}
UPDATES = "schedule.updates=6"
MLP = ["model=mlp", "model.width=0.3", "dataset.limit=768"]
RESNET = ["model=resnet20", "model.width=0.25", "dataset.limit=288", "schedule.updates=3"]
MORE = {
    "fresh": ["method=gse", "subset=graest", "method.batch=fresh", "method.samples_per_class=3", UPDATES],
    "global": ["method=gse", "subset=grabo", "scope=global", "backend=sparse", UPDATES],
    "dense": ["method=dense", "sparsity=0"],
    "static": ["method=static", "backend=sparse"],
    "gmp": ["method=gmp", UPDATES],
    "snfs": ["method=snfs", UPDATES],
    "mest": ["method=mest", "method.soft_bound=true", "backend=sparse", UPDATES],
    "deepr": ["method=deepr", "scope=global", "backend=sparse"],
    "dsr": ["method=dsr", "backend=sparse"],
    "topkast": ["method=topkast"],
    "topk_ga": ["method=topk_ga"],
    "str": ["method=str", "sparsity=0"],
    "autosparse": ["method=autosparse", "sparsity=0"],
    "snip": ["method=snip"],
    "grasp": ["method=grasp"],
    "synflow": ["method=synflow", "method.rounds=10"],
    "fisher": ["method=fisher", "optimizer.lr=0.02"],
    "microbatch": ["method=gse", "subset=graest", "backend=sparse", "microbatch=8", UPDATES],
    "lth": ["method=lth", "method.levels=1", "optimizer.lr=0.02"],
}
BOTH = ("masked", "sparse")
SOME = {"set": ("masked",), "rigl": BOTH, "uniform": ("sparse",), "grabo": ("sparse",), "graest": BOTH}
CASES: dict[str, tuple[list[str], bool]] = {
    **{f"mlp-{g}-{b}": ([*MLP, *w, UPDATES, f"backend={b}"], False) for g, w in GROWTH.items() for b in BOTH},
    **{f"resnet-{g}-{b}": ([*GROWTH[g], *RESNET, f"backend={b}"], True) for g, some in SOME.items() for b in some},
    "resnet-single": ([*GROWTH["grabo"], *RESNET, "backend=sparse", "activations=lean"], False),
    "dropout": (
        ["model=vgg16_small", "model.width=0.125", "dataset.limit=96", "method=static", "activations=lean"],
        True,
    ),
    **{name: ([*MLP, *words], False) for name, words in MORE.items()},
}
"""Words of each, and whether it computes in float64."""


def train(words: list[str], double: bool, ranks: Ranks) -> dict[str, Any]:
    """Train to the end; give every step's loss, and what there is at the end.

    Every pixel has a factor of its own: those that are black on all images would else give connections of exactly
    equal gradients, of which rounding would choose.
    """
    experiment = compose([*COMMON, *words])
    if experiment.choices["model"] == "vgg16_small":
        experiment.config["dataset"]["_target_"] = "pair.LargeDigits"
    training = assemble(experiment, torch.device("cpu"), ranks=ranks)
    normalise, draws = training.data._normalise, torch.Generator().manual_seed(0)
    factor = 1 + torch.rand(experiment.build("dataset").image, generator=draws) / 10
    training.data._normalise = lambda x: normalise(x) * (factor.double() if double else factor)
    if double:
        training.model.double()
        training.loss_sum = training.loss_sum.double()
        training.loss = functional.cross_entropy
    training.model.train()
    training.prepare()
    losses = []
    while training.step < training.total_steps:
        training.loss_sum.zero_()
        training.take_step()
        losses.append(training.loss_sum.item())
    return {
        "losses": losses,
        "updates": training.updates,
        "flops": training.flops.train,
        "topologies": [layer.topology.positions for layer in training.layers],
        "model": training.model.state_dict(),
        "evaluated": training.evaluate(),
        "classes": sorted({type(module).__name__ for module in training.model.modules()}),
    }


def each_case(folder: Path, ports: list[int]) -> None:
    """Train every case in one group."""
    here = place(ports[0])
    ranks = distributed.join(here)
    for name, (words, double) in CASES.items():
        torch.save(train(words, double, ranks), folder / f"{name}-{here.rank}.pt")
    ranks.leave(failed=False)


def stopped(folder: Path, ports: list[int], *words: str) -> None:
    """Run to the end; and elsewhere stop at two random steps, each time asked in one process only, and continue."""
    moments, step, states = random.Random(str(words)), fit.take_timed_step, []
    for port, part in zip(ports, ("whole", "stopped", "stopped", "stopped"), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        asked, at, last, taken = moments.randrange(3), moments.randrange(2, 25), len(states) in (0, 3), 0

        def counted(*args: Any, asked: int = asked, at: int = at, last: bool = last) -> None:
            nonlocal taken
            step(*args)
            taken += 1
            if not last and taken == at and asked == int(os.environ["RANK"]):
                os.kill(os.getpid(), signal.SIGTERM)

        fit.take_timed_step = counted
        made = compose([*COMMON, *words, "epochs=2", "distributed=ddp", f"results={folder / part}"])
        states.append(lifecycle.run(made).state)
    assert states == ["done", "interrupted", "interrupted", "done"], states


def differ(folder: Path, ports: list[int]) -> None:
    """Return one process another topology: every one has to say so, in place of training on."""
    here = place(ports[0])
    ranks = distributed.join(here)
    made = compose([*COMMON, *MLP, "method=static", f"seed={here.rank}"])
    training = assemble(made, torch.device("cpu"), ranks=ranks)
    with pytest.raises(RuntimeError, match="steps or topologies differ between the 2 processes of this run"):
        training.compare()
    ranks.leave(failed=False)


def place(port: int) -> distributed.Place:
    os.environ["MASTER_PORT"] = str(port)
    return distributed.place("ddp")


if __name__ == "__main__":
    what, folder, ports, *words = sys.argv[1:]
    sys.path.append(str(Path(__file__).parents[1] / "backend"))
    work = {"cases": each_case, "stopped": stopped, "differ": differ}[what]
    try:
        work(Path(folder), list(map(int, ports.split(","))), *words)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
