"""What has to be true on a GPU; each function runs in a process of its own and yields what it found."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import step_graph
import torch
from torch import Tensor

from dstrun.config.composition import compose
from dstrun.train import checkpoint, training
from dstrun.train.training import Training
from dstrun.train.turns import pause, take_turns
from gpu_phases.child import Found, check
from gpu_phases.kit import ROOT
from gpu_phases.scale import Scale, every, scale

Verdict = tuple[bool | None, str]


def begin(words: Sequence[str], device: str, graphs: bool = True) -> Training:
    """Put a run together that is ready for its first step; on a CPU, what a graph would replay is called."""
    if device == "cpu":
        training.capture = lambda step, x, y, counters: step
    run = step_graph.start(list(words), graphs, device)
    step_graph.wait(run.device)  # every run is put together on a stream of its own
    return run


def advance(run: Training, steps: int) -> None:
    """Train for so many steps."""
    for _ in range(steps):
        run.data.begin(run.step)
        run.take_step()


def same(one: Training, other: Training) -> tuple[bool, str]:
    """Return whether weights, momenta and losses of two runs are the same bits, and how many tensors are not."""
    both = list(zip(everything(one), everything(other), strict=True))
    moved = sum(a.device != b.device for a, b in both)
    pairs = [(a.cpu(), b.cpu()) for a, b in both]
    differ = [(a, b) for a, b in pairs if not torch.equal(a, b)]
    largest = max(((a.double() - b.double()).abs().max().item() for a, b in differ if a.shape == b.shape), default=0.0)
    told = f"{len(differ)} of {len(pairs)} tensors differ" + (f", by {largest:.2g} at most" if differ else "")
    return not differ, told + (f", {moved} are on another device" if moved else "")


def everything(run: Training) -> list[Tensor]:
    """Return the tensors that two equal runs have in common."""
    momenta = [t for s in run.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
    return [
        *run.model.state_dict().values(),
        *(layer.topology.positions for layer in run.layers),
        *momenta,
        run.loss_sum,
    ]


def several(parts: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Found]:
    """Yield what several functions of this module find, in one process."""
    for function, arguments in parts:
        yield from globals()[function](**arguments)


def against_cpu(device: str, root: str, names: Sequence[str]) -> Iterator[Found]:
    """Yield whether two steps on the device are those of the CPU, in fp32; the second updates.

    Rounding grows by every step. How far may show: the CPU with images in the other layout, where it sums in another
    order.
    """
    size = scale(device, root)
    for name in names:
        yield check(f"cpu: {name}", partial(_against_cpu, size, name))


def _against_cpu(size: Scale, method: str) -> Verdict:
    updates = () if method == "static" else every(2)
    words = [*size.few, *size.small, f"threads={size.threads}", f"method={method}", "sparsity=0.9", *updates]
    here, other, there = (begin(words, device, graphs=False) for device in ("cpu", "cpu", size.device))
    other.data.channels_last = not other.data.channels_last
    for run in (here, other, there):
        advance(run, 1)
    off, usual = distance(here, there), distance(here, other)
    for run in (here, other, there):
        advance(run, 1)
    lost, usually = moved(here, there), moved(here, other)
    told = f"weights {off:.2e} from the CPU's after a step (its own, in another order: {usual:.2e})"
    told += f", {lost:.3%} of the topology is another after an update ({usually:.3%})"
    right = off <= 3 * usual + 1e-6 and lost <= 3 * usually + 1e-3
    return right and (here.updates > 0) == bool(updates), told


def moved(one: Training, other: Training) -> float:
    """Return the share of a run's connections that another has not."""
    found = [
        (a.topology.positions.cpu(), b.topology.positions.cpu()) for a, b in zip(one.layers, other.layers, strict=True)
    ]
    return 1 - sum(torch.isin(a, b).sum().item() for a, b in found) / sum(len(a) for a, _ in found)


def distance(one: Training, other: Training) -> float:
    """Return how far the weights of two runs are apart, relative to their size."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    both = [(a.detach().double().cpu(), b.detach().double().cpu()) for a, b in pairs]
    off, whole = (
        sum(float(part.square().sum()) for part in parts) for parts in ([a - b for a, b in both], [a for a, _ in both])
    )
    return (off / whole) ** 0.5


def twice(device: str, root: str, network: str) -> Iterator[Found]:
    """Yield whether the same seed gives the same bits, over 30 steps and an update."""
    size = scale(device, root)
    for precision in size.precisions[:2]:
        yield check(f"twice: {network} {precision}", partial(_twice, size, network, precision))


def _twice(size: Scale, network: str, precision: str) -> Verdict:
    words = size.words(network, "method=gse", "sparsity=0.98", f"precision={precision}", *every(20), few=True)
    both = [begin(words, size.device) for _ in range(2)]
    for run in both:
        advance(run, 30)
    return same(*both)


def in_turns(device: str, root: str) -> Iterator[Found]:
    """Yield whether runs that share a process leave what each leaves alone, over two updates."""
    yield check("turns: three runs", partial(_in_turns, scale(device, root)))


def _in_turns(size: Scale) -> Verdict:
    given = ("method=gse", "sparsity=0.98", *every(20))
    words = [size.words(size.main, *given, f"seed={seed}", few=True) for seed in range(3)]
    found: dict[int, Training] = {}

    def train(seed: int) -> None:
        run = begin(words[seed], size.device)
        for _ in range(3):
            advance(run, 15)
            pause()
        found[seed] = run

    take_turns([partial(train, seed) for seed in range(3)])
    verdicts = []
    for seed in range(3):
        alone = begin(words[seed], size.device)
        advance(alone, 45)
        verdicts.append(same(alone, found[seed]))
    return all(right for right, _ in verdicts), "; ".join(told for _, told in verdicts)


def replayed(device: str, root: str, names: Sequence[str]) -> Iterator[Found]:
    """Yield whether 40 steps replayed as a graph are those launched one by one, over two updates."""
    size = scale(device, root)
    for name in names:
        yield check(f"graph: {name}", partial(_replayed, size, name))


def _replayed(size: Scale, method: str) -> Verdict:
    words = size.words(size.main, f"method={method}", few=True)
    if compose(words).choices["schedule"] is not None:
        words += every(15)
    both = [begin(words, size.device, graphs) for graphs in (False, True)]
    for run in both:
        advance(run, 40)
    equal, told = same(*both)
    how = "replayed" if both[1]._replay is not None else "never replayed"
    broken = both[1]._repeatable and both[1]._replay == both[1]._ordinary_step and size.device == "cuda"
    return equal and not broken, f"{told}, {how}, {both[1].updates} updates" + (", NOT CAPTURED" if broken else "")


def resumed(device: str, root: str, optimizers: Sequence[str]) -> Iterator[Found]:
    """Yield whether a run stopped at step 25 and continued from its file is the same at step 50."""
    size = scale(device, root)
    for name in optimizers:
        yield check(f"resume: {name}", partial(_resumed, size, name))


def _resumed(size: Scale, optimizer: str) -> Verdict:
    words = size.words(size.main, "method=gse", f"optimizer={optimizer}", *every(20), few=True)
    whole, stopped, again = (begin(words, size.device) for _ in range(3))
    advance(whole, 50)
    advance(stopped, 25)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "checkpoint.pt", stopped)
        step = checkpoint.load(Path(folder) / "checkpoint.pt", again)
    again.model.train()
    advance(again, 25)
    equal, told = same(whole, again)
    return equal and step == 25, told


def quiet(device: str, root: str) -> Iterator[Found]:
    """Yield whether ordinary steps never wait for the GPU."""
    size = scale(device, root)
    for network in size.networks:
        for graphs in (True, False):
            how = "replayed" if graphs else "launched"
            yield check(f"no waiting: {network} {how}", partial(_quiet, size, network, graphs))


def _quiet(size: Scale, network: str, graphs: bool) -> Verdict:
    run = begin(size.words(network, "method=gse", *every(1000), few=True), size.device, graphs)
    advance(run, 8)
    if size.device != "cuda":
        advance(run, 2)
        return None, "a CPU waits for nothing"
    for _ in range(30):
        run.data.begin(run.step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.take_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return True, "30 steps"


def memory(device: str, root: str) -> Iterator[Found]:
    """Yield whether the peaks on record are those of the allocator, and what was planned."""
    from gpu_phases.peaks import compared

    size = scale(device, root)
    for kind in ("step", "update"):
        yield check(f"memory: {kind}", partial(compared, size, size.main, kind))


def techniques(device: str, root: str, names: Sequence[str]) -> Iterator[Found]:
    """Yield the same of a step of the network of blocks with each technique that saves memory."""
    from gpu_phases.peaks import compared

    size = scale(device, root)
    for name in names:
        yield check(f"memory: {name}", partial(compared, size, size.blocks, "step", name.split()))


def methods(device: str, root: str, names: Sequence[str]) -> Iterator[Found]:
    """Yield whether a short run of each method comes to its record, by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            yield check(f"method: {name}", partial(_method, device, name, folder))


def _method(device: str, name: str, folder: str) -> Verdict:
    from dstrun.cli.main import main
    from dstrun.record import valid

    words = ["dataset=digits", "dataset.limit=512", "batch_size=64", "model=resnet20", "model.width=0.25", "epochs=2"]
    words += [f"method={name}", "optimizer.lr=0.05", "threads=1", f"device={device}", f"results={folder}"]
    words += ["wandb=disabled", f"experiment={name}"]
    if compose(words).config["sparsity"]:
        words.append("sparsity=0.8")
    code = main(words)
    records = [valid.read(path) for path in Path(folder, name).glob("*/record.json")]
    if code or len(records) != 1:
        return False, f"exit code {code}, {len(records)} records"
    record = records[0]
    return record["state"] == "done", f"top-1 {record['accuracy']['top1']:.1f} %, {record['updates']} updates"


def marked(device: str, root: str) -> Iterator[Found]:
    """Yield whether the tests marked ``gpu`` pass."""
    yield check("tests marked gpu", partial(_marked, device))


def _marked(device: str) -> Verdict:
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    options = ["-m", "gpu", "-q", "-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    told = "; ".join([last, *failed])[:600]
    if device == "cpu" and not done.returncode:
        return None, told
    return done.returncode == 0 and bool(re.search(r"\d+ passed", last)) and "skipped" not in last, told
