"""What steps cost a GPU, counted on the pretend device: kernels launched, waits of the host, copies.

The tables are exact. Launches change on purpose only; waits and copies only fall: what is new goes into the table.
"""

from __future__ import annotations

import pytest
import torch
from cuda_mode import pretend
from pretend_run import SMALL, SOON, Taken, advance, begin, noise
from tally import Tally, counting
from test_pretend_runs import words

from dstrun.help import options
from dstrun.train.training import Training

__all__ = ["noise"]

PLAIN = ("dense", "static", "set", "rigl", "gse")
counted = pytest.mark.skipif(torch.__version__ < "2.15", reason="counted with 2.15: older ones index otherwise")


def steps(given: list[str], count: int) -> list[Taken]:
    """Return what steps did, but for the first, in which the optimizer gets its rate onto the device."""
    with pretend():
        run = begin(given, "cuda")
        run.prepare()
        return advance(run, count)[1:]


STEP = {
    "mlp": {"dense": 29, "static": 35, "set": 35, "rigl": 35, "gse": 35},
    "resnet20": {"dense": 179, "static": 219, "set": 219, "rigl": 219, "gse": 219},
}
"""Kernels of an ordinary step."""
UPDATE = {
    "mlp": {"set": (54, 12), "rigl": (51, 6), "gse": (46, 16)},
    "resnet20": {"set": (360, 80), "rigl": (340, 40), "gse": (318, 118)},
}
"""Waits and copies of an update; ten and one a layer would do: 13 and 30."""


@counted
@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("network", SMALL)
def test_a_step_never_waits_and_an_update_no_more_than_it_did(network: str, method: str) -> None:
    """An update does wait more than ten times and once a layer: its counts are what they were when first counted."""
    soon = SOON if method in UPDATE[network] else ()
    taken = steps([*SMALL[network], f"method={method}", *soon], 4)
    ordinary, updates = ([step.tally for step in taken if step.updated == updated] for updated in (False, True))
    for tally in ordinary:
        assert tally.totals == (STEP[network][method], 0, 0), tally.told()
    assert len(updates) == len(soon) // 2
    for tally in updates:
        assert tally.totals[1:] == UPDATE[network][method], tally.told()


NETWORKS = {"resnet56": 591, "vgg16_small": 185, "vit": 192}
"""Kernels of an ordinary step on CIFAR-10's augmented images, method=static."""


@counted
@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_of_a_step(network: str, noise: tuple[str, ...]) -> None:
    [taken] = steps([*noise, f"model={network}", "method=static"], 2)
    assert taken.tally.totals == (NETWORKS[network], 0, 0), taken.tally.told()


REWIRING = ("topology.py:", "backend/masked.py:")
"""Where ``rewire`` and ``explored`` of a layer wait: the methods below have little say in that."""
RARE = {"topkast": ("method.refresh_steps=16000",)}
"""Words with which not every step is an update."""
WAITS = {method: (1, 3) if method == "deepr" else (0, 0) for method in options("method") if method not in PLAIN}
"""Waits and copies of a step that is not an update, by method, but for ``REWIRING``: DeepR rewires in every step."""
PREPARING = {"random": (2, 3), "snip": (5, 3), "grasp": (7, 5), "synflow": (12, 5), "str": (1, 0), "autosparse": (1, 0)}
"""The same before the first step, for which memory is measured: that alone takes two waits. SynFlow: five rounds."""
KERNELS = {"deepr": 199, "str": 527}
"""Kernels of a step that is not an update on resnet20, but for ``REWIRING``."""


def apart(tally: Tally) -> tuple[int, int, int]:
    """Return launches, waits and copies, those of ``REWIRING`` aside."""
    kinds = (tally.launches, tally.waits, tally.copies)
    launches, waits, copies = (sum(n for (_, at), n in kind.items() if not at.startswith(REWIRING)) for kind in kinds)
    return launches, waits, copies


def begun(network: str, method: str) -> Training:
    """Return a run of a method, on the pretend device, that is yet to be prepared."""
    return begin([*words(network, method), *RARE.get(method, ())], "cuda")


@pytest.mark.parametrize("method", WAITS)
def test_steps_of_other_methods_wait_no_more_than_they_must(method: str) -> None:
    with pretend():
        run = begun("mlp", method)
        with counting() as tally:
            run.prepare()
        taken = advance(run, 4)[1:]
    assert apart(tally)[1:] == PREPARING.get(method, (0, 0)), tally.told()
    ordinary = [step.tally for step in taken if not step.updated]
    assert ordinary
    for tally in ordinary:
        assert apart(tally)[1:] == WAITS[method], tally.told()
    for step in taken:
        assert method != "topkast" or not step.updated or step.tally.totals[1:] == (1, 0), step.tally.told()


@counted
@pytest.mark.parametrize("method", KERNELS)
def test_kernels_of_a_step_of_other_methods(method: str) -> None:
    with pretend():
        run = begun("resnet20", method)
        run.prepare()
        taken = [step.tally for step in advance(run, 3)[1:] if not step.updated]
    assert [apart(tally)[0] for tally in taken] == [KERNELS[method]] * len(taken) != []


def test_an_evaluation_waits_once(noise: tuple[str, ...]) -> None:
    with pretend():
        run = begin([*noise, "model=resnet20", "method=dense"], "cuda")
        with counting() as tally:
            run.evaluate()
    assert tally.totals[1:] == (1, 0), tally.told()
