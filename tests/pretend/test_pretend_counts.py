"""What steps cost a GPU, counted on the pretend device: kernels launched, waits of the host, copies.

The tables are exact. Launches change on purpose only; waits and copies only fall: what is new goes into the table.
"""

from __future__ import annotations

import pytest
from cuda_mode import pretend
from pretend_run import SMALL, SOON, Taken, advance, begin, noise
from tally import counting

__all__ = ["noise"]

PLAIN = ("dense", "static", "set", "rigl", "gse")


def steps(words: list[str], count: int) -> list[Taken]:
    """Return what steps did, but for the first, in which the optimizer gets its rate onto the device."""
    with pretend():
        run = begin(words, "cuda")
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


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_of_a_step(network: str, noise: tuple[str, ...]) -> None:
    [taken] = steps([*noise, f"model={network}", "method=static"], 2)
    assert taken.tally.totals == (NETWORKS[network], 0, 0), taken.tally.told()


OTHERS = {"snfs": 0, "dsr": 0, "topk_ga": 0, "sss": 0, "str": 1, "autosparse": 1}
"""Waits of a step that is not an update, by method: STR and AutoSparse count their weights in every step."""


@pytest.mark.parametrize("method", OTHERS)
def test_steps_of_other_methods_wait_no_more_than_they_did(method: str) -> None:
    words = [*SMALL["mlp"], f"method={method}", *(SOON if method == "snfs" else ())]
    for step in steps(words, 2):
        assert step.updated or step.tally.totals[1:] == (OTHERS[method], 0), step.tally.told()


def test_an_evaluation_waits_once(noise: tuple[str, ...]) -> None:
    with pretend():
        run = begin([*noise, "model=resnet20", "method=dense"], "cuda")
        with counting() as tally:
            run.evaluate()
    assert tally.totals[1:] == (1, 0), tally.told()
