"""How many steps a second several runs take together: a process each, and a stream each in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from gpu_phases import jobs
from gpu_phases.child import Found, row
from gpu_phases.scale import scale
from gpu_phases.slot import Slot

WORTH = 0.95
"""Of the best throughput: as few runs at once as reach it, as each ends earlier."""


def packed(slot: Slot, deadline: float) -> bool:
    """Train 1, 2, 4, ... runs beside each other for some seconds each; the best number is what trains later."""
    if slot.measured_before("packed"):
        slot.say(f"packed: measured in an earlier slot, {slot.best} at once")
        return True
    size = scale(slot.device, str(slot.root))
    common = {"device": slot.device, "root": str(slot.root), "folder": str(slot.work)}
    runs = [
        jobs.Job(f"packed-{i}", "gpu_phases.packed:beside", common | {"index": i}, timeout=600)
        for i in range(max(size.together))
    ]
    try:
        for run in runs:
            run.start(slot)
        ready = [slot.work / f"ready-{i}" for i in range(len(runs))]
        rates: dict[int, float] = {}
        for count in size.together:
            while not all(path.exists() for path in ready[:count]):
                if broken := next((run for run in runs[:count] if run.ended()), None):
                    raise RuntimeError(broken.why())
                if time.monotonic() + size.beside_s + 1 > deadline:
                    slot.say(f"{count} at once: cut, the processes were not ready in time")
                    return False
                time.sleep(jobs.POLL_S)
            if time.monotonic() + size.beside_s + 1 > deadline:
                slot.say(f"{count} at once: cut, the phase is over")
                return False
            rates[count] = _together(slot, runs[:count], count, size.beside_s)
            note = f"{size.main} replayed, {rates[count] / rates[1]:.2f} x one alone"
            slot.hear(row(f"packed/{count}", rates[count], "steps/s", note))
            slot.best = next(n for n, rate in rates.items() if rate >= WORTH * max(rates.values()))
    finally:
        for run in runs:
            run.kill()
    slot.say(f"{slot.best} at once from here on")
    arguments = {"device": slot.device, "root": str(slot.root)}
    job = jobs.Job("packed-streams", "gpu_phases.packed:streams", arguments, timeout=600)
    jobs.run(slot, [job], 1, deadline)
    return True


def _together(slot: Slot, runs: list[jobs.Job], count: int, seconds: float) -> float:
    """Return the steps a second of all runs, which train while there is a file for their number."""
    go = slot.work / f"go-{count}"
    go.write_text(str(time.time() + 0.2))
    time.sleep(0.2 + seconds)
    rate, heard = 0.0, 0
    waited = time.monotonic() + 10
    while heard < len(runs) and time.monotonic() < waited:
        for run in runs:
            for found in run.listen():
                rate, heard = rate + found["rate"], heard + 1
        time.sleep(jobs.POLL_S)
    go.unlink()
    if heard < len(runs):
        raise RuntimeError(f"{heard} of {len(runs)} runs told their rate; {runs[-1].why()}")
    return rate


def beside(device: str, root: str, folder: str, index: int) -> Iterator[Found]:
    """Yield the steps a second of one run, for every number of runs that it is among."""
    import step_graph

    from gpu_phases.checks import advance, begin

    size, here = scale(device, root), Path(folder)
    words = size.words(size.main, "method=gse", "sparsity=0.98", f"seed={index}", *every_never())
    run = begin(words, device)
    advance(run, 10)
    step_graph.wait(run.device)
    (here / f"ready-{index}").touch()
    for count in size.together:
        if index >= count:
            continue
        go = here / f"go-{count}"
        while not go.exists() or not go.read_text():
            time.sleep(0.02)
        time.sleep(max(0.0, float(go.read_text()) - time.time()))
        began, done = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < size.beside_s:
            advance(run, 20)
            step_graph.wait(run.device)
            done += 20
        yield {"rate": done / took}


def streams(device: str, root: str) -> Iterator[Found]:
    """Yield the steps a second of several runs of one process together, which take turns, on a stream each.

    They are not right where networks drop units: PyTorch has one generator for all graphs of a device.
    """
    import step_graph
    import torch

    from gpu_phases.checks import advance, begin

    size = scale(device, root)
    use = torch.cuda.set_stream if device == "cuda" else lambda _: None
    for network in size.packed:
        runs = []
        for seed in range(max(size.together)):
            words = size.words(network, "method=gse", "sparsity=0.98", f"seed={seed}", *every_never())
            runs.append((begin(words, device), torch.cuda.current_stream() if device == "cuda" else None))
            advance(runs[-1][0], 10)
        rates: dict[int, float] = {}
        for count in size.together:
            step_graph.wait(runs[0][0].device)
            began, done = time.perf_counter(), 0
            while (took := time.perf_counter() - began) < size.beside_s / 2:
                for _ in range(20):
                    for run, stream in runs[:count]:
                        use(stream)
                        advance(run, 1)
                step_graph.wait(runs[0][0].device)
                done += 20 * count
            rates[count] = done / took
            note = f"{rates[count] / rates[1]:.2f} x one alone"
            yield row(f"streams/{network}/{count}", rates[count], "steps/s", note)


def every_never() -> tuple[str, ...]:
    """Return the words of a schedule that comes to no update here."""
    return ("schedule.interval_steps=100000",)
