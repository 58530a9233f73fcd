"""Always-sparse linear layers beside masked ones and PyTorch's CSR: three layers n -> n, a step and its peak."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gpu_phases import jobs
from gpu_phases.child import Found, last_line, row
from gpu_phases.scale import scale
from gpu_phases.slot import Slot
from gpu_phases.where import timed

if TYPE_CHECKING:
    from dstrun.layer.initial import Initial

BATCH = 128
DRAWN = 1 << 27
"""Random numbers that are drawn at once."""
WAYS = {
    "sparse-bf16": ("sparse", True),
    "sparse-fp32": ("sparse", False),
    "masked-bf16": ("masked", True),
    "csr-fp32": ("torch csr", False),
}
"""By name: one of ``arguments.SCALED``, and whether products are of bfloat16."""


def wide(slot: Slot, deadline: float) -> bool:
    """Time all widths in one process."""
    if slot.measured_before("wide"):
        slot.say("wide: measured in an earlier slot")
        return True
    left = deadline - time.monotonic()
    arguments = {"device": slot.device, "until": time.time() + left - 2}
    jobs.run(slot, [jobs.Job("wide", "gpu_phases.wide:widths", arguments, timeout=left)], 1, deadline)
    last = "/".join(map(str, scale(slot.device, "").widths[-1]))
    return f"wide/{last}/sparse-bf16" in slot.rows


def widths(device: str, until: float) -> Iterator[Found]:
    """Yield milliseconds and the peak of a step, by width, connections of a unit and way; none is begun after that."""
    for n, degree in scale(device, "").widths:
        starts: list[Initial] = []
        for name in WAYS:
            case = f"wide/{n}/{degree}/{name}"
            if time.time() > until:
                yield {"fact": case, "value": "not timed, the phase was over"}
                continue
            try:
                starts = starts or [drawn(n, degree, device) for _ in range(3)]
                yield from _timed(case, *WAYS[name], device, n, degree, starts)
            except Exception as error:
                yield {"fact": case, "value": last_line(error)}


def drawn(n: int, degree: int, device: str) -> Initial:
    """Draw a layer on the device, each connection with the same chance: sorted as they come, a few outputs at once."""
    import torch

    from dstrun.layer.initial import Initial
    from dstrun.layer.topology import Topology

    parts = []
    for first in range(0, n, max(1, DRAWN // n)):
        outputs = min(max(1, DRAWN // n), n - first)
        active = torch.rand(outputs * n, device=device) < degree / n
        parts.append(active.nonzero().flatten() + first * n)
    positions = torch.cat(parts)
    values = (torch.rand(positions.numel(), device=device) * 2 - 1) * (3 / degree) ** 0.5
    return Initial(Topology((n, n), positions.cpu()), values, torch.zeros(n, device=device))


def _timed(
    case: str, implementation: str, bf16: bool, device: str, n: int, degree: int, starts: list[Initial]
) -> Iterator[Found]:
    import torch

    from dstrun.bench.point import Network, predict
    from dstrun.layer.initial import Initial
    from dstrun.system.free import free_bytes

    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    needed, free = predict(implementation, n, degree, BATCH), free_bytes(device)
    if needed > 0.9 * free:
        yield {"fact": case, "value": f"does not fit: {needed / 1e9:.0f} GB of {free / 1e9:.0f} free"}
        return
    own = [Initial(start.topology, start.values.clone(), start.bias) for start in starts]
    network = Network(implementation, n, degree, BATCH, device, bf16, own)
    del own
    if device == "cpu":
        for layer in getattr(network, "layers", ()):
            layer.kernel = "reference"  # which takes no time to compile
    active = sum(start.topology.count for start in starts)
    seconds = timed(device, network.step, 1)
    if device == "cuda":
        seconds = timed(device, network.step, 20 if seconds < 0.05 else 3)
    yield row(case, 1e3 * seconds, "ms", f"a step, {active:,} connections, batch {BATCH}")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        network.step()
        peak, note = torch.cuda.max_memory_allocated() - sum(map(_bytes, starts)), "allocated by PyTorch in a step"
    else:
        peak, note = network.bytes(), "held, not the peak"
    yield row(f"{case}/peak", peak / 1e9, "GB", note)


def _bytes(start: Initial) -> int:
    """Count what a drawn layer keeps on the device besides the network's own."""
    return start.values.nbytes + start.bias.nbytes
