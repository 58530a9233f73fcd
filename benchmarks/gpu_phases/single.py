"""How fast one run is: a plain loop, steps launched one by one and steps replayed, in turns; updates and the rest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from gpu_phases import jobs
from gpu_phases.child import Found, last_line, row
from gpu_phases.scale import METHODS, Scale, every, scale
from gpu_phases.slot import Slot


def single(slot: Slot, deadline: float) -> bool:
    """Time one run at a time, nothing beside it."""
    if slot.measured_before("single"):
        slot.say("single: measured in an earlier slot")
        return True
    left, size = deadline - time.monotonic(), scale(slot.device, "")
    shares = {"steps": 0.7, "updates": 1.0} if slot.device == "cuda" else {"steps": 1.0, "updates": 1.0}
    parts = []
    for part, share in shares.items():
        until = time.time() + share * left - size.margin_s
        arguments = {"device": slot.device, "root": str(slot.root), "until": until}
        parts.append(jobs.Job(f"single-{part}", f"gpu_phases.single:{part}", arguments, timeout=left))
    jobs.run(slot, parts, 1 if slot.device == "cuda" else 2, deadline)
    rows = {f"step/{network}/{precision}/graph" for network in size.networks for precision in size.precisions}
    rows |= {*(f"update/{method}" for method in METHODS), "evaluation", "checkpoint"}
    return rows <= slot.rows.keys()


def steps(device: str, root: str, until: float) -> Iterator[Found]:
    """Yield milliseconds a step of each network and precision; what is begun until then is ended."""
    size = scale(device, root)
    for precision in size.precisions:
        for network in size.networks:
            if time.time() > until:
                yield {"fact": f"step/{network}/{precision}", "value": "not timed, the phase was over"}
                continue
            try:
                yield from _in_turns(size, network, precision)
            except Exception as error:
                yield {"fact": f"step/{network}/{precision}", "value": last_line(error)}


def _in_turns(size: Scale, network: str, precision: str) -> Iterator[Found]:
    import step_graph

    from gpu_phases.checks import advance, begin

    words = size.words(network, f"precision={precision}")
    sparse = [*words, "method=gse", "sparsity=0.98", *every(100_000)[:1]]
    eager, graph, last = (begin(sparse, size.device, graphs) for graphs in (False, True, True))
    last.data.channels_last = not graph.data.channels_last
    ways: dict[str, Callable[[int], float]] = {
        "plain": _plain(words, size.device, precision),
        "eager": lambda count: step_graph.steps(eager, count),
        "graph": lambda count: step_graph.steps(graph, count),
        "other layout": lambda count: step_graph.steps(last, count),
    }
    advance(eager, 5)
    advance(graph, 8)
    advance(last, 8)
    blocks = {}
    for name, way in ways.items():
        first = max(way(5), 1e-3)
        blocks[name] = min(max(int(1e3 * size.block_s / first), 5), 200)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(size.rounds):
        for name, way in ways.items():
            times[name].append(way(blocks[name]))
    for name, found in times.items():
        spread = f"{min(found):.3g} to {max(found):.3g}, {len(found)} blocks of {blocks[name]}"
        yield row(f"step/{network}/{precision}/{name}", median(found), "ms", spread)
    if precision == "tf32" and size.device == "cuda":
        yield from _kernels(network, lambda: advance(eager, 1))


def _plain(words: list[str], device: str, precision: str) -> Callable[[int], float]:
    """Return a timer of a plain PyTorch loop on the same network and batches, all weights active."""
    import plain_loop
    import step_graph
    import torch

    from dstrun.config.composition import compose

    model, optimizer, data = plain_loop.build(compose([*words, "method=dense"]), device)
    done = 0

    def timed(count: int) -> float:
        nonlocal done
        strict = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        step_graph.wait(data.device)
        began = time.perf_counter()
        for _ in range(count):
            cast = nullcontext() if precision in ("fp32", "tf32") else torch.autocast(device, torch.bfloat16)
            plain_loop.take_step(model, optimizer, data, done, cast)
            done += 1
        step_graph.wait(data.device)
        took = time.perf_counter() - began
        torch.use_deterministic_algorithms(strict)
        return 1e3 * took / count

    return timed


def _kernels(network: str, step: Callable[[], None]) -> Iterator[Found]:
    """Yield how many kernels a step launches, and how long the GPU is busy with them."""
    import torch
    from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or () if event.device_type == DeviceType.CUDA]
    yield row(f"kernels/{network}", len(events), "a step", "launched one by one")
    yield row(f"busy/{network}", sum(e.time_range.elapsed_us() for e in events) / 1e3, "ms a step", "sum of kernels")


def updates(device: str, root: str, until: float) -> Iterator[Found]:
    """Yield milliseconds of an update of each method, of an evaluation and of a checkpoint."""
    size = scale(device, root)
    for method in METHODS:
        if time.time() > until:
            yield {"fact": f"update/{method}", "value": "not timed, the phase was over"}
            continue
        try:
            yield from _updates(size, method)
        except Exception as error:
            yield {"fact": f"update/{method}", "value": last_line(error)}


def _updates(size: Scale, method: str) -> Iterator[Found]:
    import step_graph

    from dstrun.train import checkpoint
    from gpu_phases.checks import advance, begin

    network = "resnet56" if "resnet56" in size.networks else size.main
    words = size.words(network, "protocol=heddes2024", f"method={method}", "sparsity=0.98", *every(5))
    run, times = begin(words, size.device), list[float]()
    while len(times) < 6 and run.step < 60:
        run.data.begin(run.step)
        step_graph.wait(run.device)
        began, before = time.perf_counter(), run.updates
        run.take_step()
        step_graph.wait(run.device)
        if run.updates > before:
            times.append(1e3 * (time.perf_counter() - began))
    yield row(f"update/{method}", median(times[1:]), "ms", f"{network}, {len(times) - 1} of them, the step included")
    if method != METHODS[-1]:
        return
    advance(run, 5)
    yield row("evaluation", _each(run.evaluate), "ms", f"{network}, the whole test split")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        took = _each(lambda: checkpoint.save(path, run))
        yield row("checkpoint", took, "ms", f"{network}, {path.stat().st_size / 1e6:.1f} MB")


def _each(work: Callable[[], object]) -> float:
    """Return the milliseconds of a call that waits for the GPU itself, of three after a first."""
    work()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - began))
    return median(times)
