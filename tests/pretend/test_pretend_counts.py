"""What steps cost a GPU, counted on the pretend device: kernels launched, waits of the host, copies.

The tables are exact. Launches change on purpose only; waits and copies only fall: what is new goes into the table.
"""

from __future__ import annotations

import pytest
from cuda_mode import pretend
from pretend_run import SMALL, SOON, Taken, advance, begin, noise
from tally import counting
from test_pretend_runs import words

from dstrun.cli.help import options
from dstrun.train.training import Training

__all__ = ["noise"]

PLAIN = ("dense", "static", "set", "rigl", "gse")


def steps(given: list[str], count: int) -> list[Taken]:
    """Return what steps did, but for the first, in which the optimizer gets its rate onto the device."""
    with pretend():
        run = begin(given, "cuda")
        run.prepare()
        return advance(run, count)[1:]


STEP = {
    "mlp": {"dense": 29, "static": 32, "set": 32, "rigl": 32, "gse": 32},
    "resnet20": {"dense": 160, "static": 180, "set": 180, "rigl": 180, "gse": 180},
}
"""Kernels of an ordinary step."""
UPDATE = {
    "mlp": {"set": (100, 2, 11), "rigl": (140, 4, 16), "gse": (131, 4, 16)},
    "resnet20": {"set": (622, 2, 62), "rigl": (883, 4, 84), "gse": (823, 4, 84)},
}
"""Kernels, waits and copies of an update; resnet20's once were (1974, 360, 80), (2073, 340, 40), (1573, 318, 118)."""


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("network", SMALL)
def test_a_step_never_waits_and_an_update_seldom(network: str, method: str) -> None:
    soon = SOON if method in UPDATE[network] else ()
    taken = steps([*SMALL[network], f"method={method}", *soon], 4)
    ordinary, updates = ([step.tally for step in taken if step.updated == updated] for updated in (False, True))
    for tally in ordinary:
        assert tally.totals == (STEP[network][method], 0, 0), tally.told()
    assert len(updates) == len(soon) // 2
    for tally in updates:
        assert tally.totals == UPDATE[network][method], tally.told()


UPDATES = {
    "rigl scope=global": 4,
    "rigl method.batch=fresh": 5,
    "gse subset=grabo": 6,
    "gse subset=graest": 6,
    "set prune=random": 1,
    "set prune=sign": 4,
    "snfs": 4,
    "dsr": 2,
    "mest": 2,
}
"""Waits of other updates of a network of three layers: 13 would be ten and one a layer."""


@pytest.mark.parametrize("words", UPDATES)
def test_other_updates_wait_seldom_too(words: str) -> None:
    method, *more = words.split()
    soon = SOON if method != "dsr" else ()
    updates = [step.tally for step in steps([*SMALL["mlp"], f"method={method}", *more, *soon], 4) if step.updated]
    assert updates
    for tally in updates:
        assert tally.totals[1] == UPDATES[words], tally.told()


NETWORKS = {"resnet56": 480, "vgg16_small": 156, "vit": 170}
"""Kernels of an ordinary step on CIFAR-10's augmented images, method=static."""


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_of_a_step(network: str, noise: tuple[str, ...]) -> None:
    [taken] = steps([*noise, f"model={network}", "method=static"], 2)
    assert taken.tally.totals == (NETWORKS[network], 0, 0), taken.tally.told()


RARE = {"topkast": ("method.refresh_steps=16000",)}
"""Words with which not every step is an update."""
OTHERS = [method for method in options("method") if method not in PLAIN]
WAITS = {"deepr": 1}
"""Waits of a step that is not an update, where there are any: DeepR rewires in every step. Others copy nothing."""
PREPARING = {"random": 1, "snip": 3, "grasp": 4, "synflow": 11, "str": 1, "autosparse": 1}
"""Waits before the first step; none for measuring memory. SynFlow has five rounds here."""
KERNELS = {"deepr": [301], "str": [528, 528]}
"""Kernels of steps that are not updates, resnet20."""


def begun(network: str, method: str) -> Training:
    """Return a run of a method, on the pretend device, that is yet to be prepared."""
    return begin([*words(network, method), *RARE.get(method, ())], "cuda")


@pytest.mark.parametrize("method", OTHERS)
def test_steps_of_other_methods_wait_no_more_than_they_must(method: str) -> None:
    with pretend():
        run = begun("mlp", method)
        with counting() as tally:
            run.prepare()
        taken = advance(run, 4)[1:]
    assert tally.totals[1] == PREPARING.get(method, 0), tally.told()
    assert not all(step.updated for step in taken)
    for step in taken:
        waits, copies = step.tally.totals[1:]
        assert step.updated or waits == WAITS.get(method, 0), step.tally.told()
        assert step.updated or copies == 0 or method == "deepr", step.tally.told()
        assert not step.updated or method != "topkast" or (waits, copies) == (1, 0), step.tally.told()


@pytest.mark.parametrize("method", KERNELS)
def test_kernels_of_a_step_of_other_methods(method: str) -> None:
    with pretend():
        run = begun("resnet20", method)
        run.prepare()
        taken = [step.tally for step in advance(run, 3)[1:] if not step.updated]
    assert [tally.totals[0] for tally in taken] == KERNELS[method]


def test_an_evaluation_waits_once(noise: tuple[str, ...]) -> None:
    with pretend():
        run = begin([*noise, "model=resnet20", "method=dense"], "cuda")
        with counting() as tally:
            run.evaluate()
    assert tally.totals[1:] == (1, 0), tally.told()
