"""Steps launched kernel by kernel against steps replayed as a CUDA graph: the same bits, and milliseconds in turns.

python benchmarks/step_graph.py METHOD[,METHOD...] [WORD...] [--rounds 2] [--steps 150]

Words are those of the command line, such as model=vgg16_small sparsity=0.98 dataset.root=DIR. Updates are taken as they
come, and ordinary steps are what is counted. Exit code 1 where a method's weights, momentum or losses differ.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.train.device import make_deterministic, pick_device
from dstrun.train.training import Training

FIRST = 35
"""Steps that are compared, and then not timed."""


def start(words: list[str], graphs: bool, where: str = "cuda") -> Training:
    device = pick_device(where)
    experiment = compose([*words, f"device={where}", "wandb=disabled"])
    make_deterministic(device, experiment.config["threads"])
    training = assemble(experiment, device)
    training.graphs = graphs
    training.model.train()
    training.prepare()
    return training


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def steps(training: Training, count: int) -> float:
    """Train until so many ordinary steps are done; returns the milliseconds of each."""
    wait(training.device)
    started = time.perf_counter()
    done = 0
    while done < count:
        done += not training.procedure.updates_at(training.step + 1)
        training.data.begin(training.step)
        training.take_step()
    wait(training.device)
    return (time.perf_counter() - started) / count * 1e3


def state(training: Training) -> list[Tensor]:
    momenta = [s["momentum_buffer"] for s in training.optimizer.state.values() if "momentum_buffer" in s]
    return [*training.model.state_dict().values(), *momenta, training.loss_sum]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_intermixed_args()
    differ = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for method in asked.methods.split(","):
        both = [start([f"method={method}", *asked.words], graphs) for graphs in (False, True)]
        for training in both:
            steps(training, FIRST)
        same = all(map(torch.equal, *map(state, both)))
        differ |= not same
        times = [[steps(training, asked.steps) for training in both] for _ in range(asked.rounds)]
        told = "  ".join(f"{eager:.2f} {graph:.2f}" for eager, graph in times)
        print(f"{method}: {'the same bits' if same else 'DIFFERENT'}; ms a step, launched replayed: {told}", flush=True)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
