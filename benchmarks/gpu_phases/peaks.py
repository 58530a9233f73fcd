"""Peaks of memory on record, against what the allocator says of the same step of a run that is not measured."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from dstrun.account.memory import tensor_bytes
from dstrun.account.recorded import recorded
from dstrun.account.timeline import timeline
from dstrun.config.composition import compose
from dstrun.record.folder import RunFolder
from dstrun.run.predict import predict_memory
from dstrun.train.fit import take_timed_step
from dstrun.train.journal import Silence
from dstrun.train.training import Training
from gpu_phases.checks import Verdict, begin
from gpu_phases.scale import Scale, every

UPDATE = 6
"""The step that updates."""


def compared(size: Scale, network: str, kind: str, more: Sequence[str] = ()) -> Verdict:
    """Compare the peak of a kind of step; within one per cent is right.

    Args:
        size: what the device is up to.
        network: by its name there.
        kind: ``step`` or ``update``.
        more: words of the run, besides.
    """
    words = size.words(network, "method=gse", "sparsity=0.98", *every(UPDATE), *more, few=True)
    experiment = compose(words)
    before = held(size.device)
    found, besides = allocated(begin(words, size.device, graphs=False), UPDATE if kind == "update" else 2, before)
    measured = begin(words, size.device)
    silence = Silence(RunFolder(experiment.config, experiment.choices))
    for _ in range(UPDATE):
        take_timed_step(measured, silence)
    recorded = measured.memory.peaks[kind]
    planned = predict_memory(experiment)[f"{kind}_peak_bytes"]
    told = f"{recorded:,} bytes on record, {found:,} allocated ({recorded / found - 1:+.2%}), {planned:,} planned"
    return abs(recorded / found - 1) < 0.01, f"{told} ({planned / found - 1:+.1%}); {besides}"


def held(device: str) -> int:
    """Return what is allocated on a GPU once nothing is left that is not needed; 0 on a CPU."""
    gc.collect()
    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


def allocated(run: Training, step: int, before: int) -> tuple[int, str]:
    """Return the peak of a step without what is not the run's own: the images, and the workspaces of cuBLAS.

    Args:
        run: at its first step.
        step: to look at.
        before: bytes that were allocated before the run was put together.
    """
    for _ in range(step - 1):
        run.data.begin(run.step)
        run.take_step()
    run.data.begin(run.step)
    if run.device.type != "cuda":
        with recorded(run.device) as events:
            run.take_step()
        return run.memory.at_rest() + timeline(events, {}, {}, {}).peak, "the profiler's"
    resting = held("cuda") - before
    torch.cuda.reset_peak_memory_stats()
    run.take_step()
    torch.cuda.synchronize()
    peak, after = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated()
    workspaces = after - held("cuda")
    images = tensor_bytes(t for t in vars(run.data).values() if isinstance(t, torch.Tensor) and t.is_cuda)
    unnamed = resting - images - run.memory.at_rest()
    return peak - images - workspaces, f"{images:,} of images, {workspaces:,} of workspaces, {unnamed:,} unnamed"
