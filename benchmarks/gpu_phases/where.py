"""Where this runs: the card and its ceilings; meanwhile images are decoded and functions compiled."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from gpu_phases import jobs
from gpu_phases.child import Found, check, last_line, row
from gpu_phases.slot import Slot


def where(slot: Slot, deadline: float) -> None:
    """Look at the machine."""
    common = {"device": slot.device, "root": str(slot.root)}
    work = [
        jobs.Job("machine", "gpu_phases.where:machine", common, ["machine"]),
        jobs.Job("warm", "gpu_phases.where:warm", common, ["images and compiled functions"]),
    ]
    jobs.run(slot, work, 2, deadline)
    slot.card = slot.facts.get("card", "")
    if not slot.card:
        slot.check("device", "failed", f"no device={slot.device} was found in time")


def machine(device: str, root: str) -> Iterator[Found]:
    """Yield what the machine is, and how fast it copies and multiplies at best."""
    import torch

    yield {"fact": "python", "value": f"{platform.python_version()} on {platform.machine()}"}
    yield {"fact": "torch", "value": torch.__version__}
    if device == "cuda":
        card = torch.cuda.get_device_name()
        free, total = torch.cuda.mem_get_info()
        yield {"fact": "card", "value": card}
        yield {"fact": "memory", "value": f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"}
        yield {"fact": "cudnn", "value": str(torch.backends.cudnn.version())}
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
            told = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.strip()
            yield {"fact": "driver, clock, power", "value": told}
    else:
        yield {"fact": "card", "value": f"cpu {platform.processor() or platform.machine()}"}
    try:
        import numba

        yield {"fact": "numba", "value": numba.__version__}
    except Exception as error:
        yield {"fact": "numba", "value": last_line(error)}
    yield check("machine", lambda: (True, "looked at"))
    for measure in (copy, product):
        try:
            yield from measure(device)
        except Exception as error:
            yield {"fact": measure.__name__, "value": last_line(error)}


def copy(device: str) -> Iterator[Found]:
    """Yield gigabytes a second of a copy on the device, read and written."""
    import torch

    count = (1 << 28) if device == "cuda" else (1 << 22)
    a = torch.randn(count, device=device)
    b = torch.empty_like(a)
    seconds = timed(device, lambda: b.copy_(a))
    yield row("copy", 2 * 4 * count / seconds / 1e9, "GB/s")


def product(device: str) -> Iterator[Found]:
    """Yield TFLOP/s of products of square matrices of random numbers."""
    import torch

    n = 8192 if device == "cuda" else 512
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        seconds = timed(device, lambda a=a, b=b: a @ b)
        yield row(f"product/{name}", 2 * n**3 / seconds / 1e12, "TFLOP/s")


def timed(device: str, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the seconds of one of several calls, after three for warming up."""
    import torch

    for _ in range(3):
        work()
    if device != "cuda":
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - began) / repeats
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def warm(device: str, root: str) -> Iterator[Found]:
    """Decode the images and compile what an update needs, once for all processes after this one."""
    from gpu_phases.checks import advance, begin
    from gpu_phases.scale import every, scale

    def decode_and_update() -> tuple[bool, str]:
        began = time.perf_counter()
        size = scale(device, root)
        training = begin(size.words(size.main, "method=gse", *every(4), few=True), device)
        advance(training, 6)
        return training.updates > 0, f"{time.perf_counter() - began:.1f} s"

    yield check("images and compiled functions", decode_and_update)
