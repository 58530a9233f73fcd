"""Runs on the pretend device mix no devices, and have the CPU's numbers bit for bit.

Not seen here: autocast (``precision=bf16``), kernels of CUDA's own, their types and their rounding.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from cuda_mode import pretend
from pretend_run import SMALL, SOON, Result, advance, begin, noise, numbers, trained

from dstrun.backend import sparse
from dstrun.cli.help import options
from dstrun.config.composition import compose
from dstrun.run import choose
from dstrun.train.training import Training

__all__ = ["noise"]

FEWER = {"synflow": ("method.rounds=5",)}


def words(network: str, method: str, *more: str) -> list[str]:
    """Return the words of a run that updates soon, if its method has a schedule."""
    soon = SOON if compose([f"method={method}"]).choices["schedule"] else ()
    return [*SMALL[network], f"method={method}", *soon, *FEWER.get(method, ()), *more]


def check(here: Result, there: Result) -> None:
    """Compare a run on the CPU with one on the pretend device."""
    assert there.losses == here.losses
    assert there.updates == here.updates
    assert there.evaluated == here.evaluated
    assert len(there.numbers) == len(here.numbers)
    for one, other in zip(there.numbers, here.numbers, strict=True):
        assert torch.equal(one, other)


def both(given: list[str]) -> tuple[Result, Result]:
    return trained(given, "cpu"), trained(given, "cuda")


@pytest.mark.parametrize("method", options("method"))
def test_every_method_trains_as_on_the_cpu(method: str) -> None:
    check(*both(words("mlp", method)))


@pytest.mark.parametrize("method", ["rigl", "snip", "str", "thin", "thinet", "sss"])
def test_convolutions_train_as_on_the_cpu(method: str) -> None:
    check(*both(words("resnet20", method)))


@pytest.mark.parametrize("kind", ["lean", "bf16"])
def test_less_is_kept_as_on_the_cpu(kind: str) -> None:
    check(*both(words("resnet20", "gse", f"activations={kind}")))


@pytest.mark.parametrize("method", ["dense", "gse"])
def test_images_with_their_channels_innermost(method: str) -> None:
    given = words("resnet20", method)
    check(trained(given, "cpu", last=True), trained([*given, "precision=tf32"], "cuda"))


def test_auto_times_steps_where_it_has_kernels_and_masks_convolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path))
    monkeypatch.setattr(sparse, "find_spec", lambda name: True)
    monkeypatch.setattr(choose, "ROUNDS", (1, 1))
    monkeypatch.setattr(choose, "mixed", lambda *_: None)
    warmed = choose.warmed

    def with_reference(run: Training) -> Training:  # Triton takes no pretended tensors
        run.graphs = False
        for layer in run.layers:
            layer.kernel = "reference"  # type: ignore[attr-defined]
        return warmed(run)

    monkeypatch.setattr(choose, "warmed", with_reference)
    given = words("resnet20", "static", "backend=auto")
    with pretend():
        run = begin(given, "cuda")
    *convolutions, linear = [layer.backend for layer in run.layers]
    assert set(convolutions) == {"masked"}
    assert f"backend=auto chooses {linear} (a step: {linear} " in capsys.readouterr().err
    (entry,) = json.loads((tmp_path / "backend.json").read_text()).values()
    assert entry["seconds"].keys() == {"masked", "sparse"}


LAYOUTS = {"gse": True, "dense": True, "gse precision=fp32": False, "gse optimizer=adamw": False, "gmp": False}


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_have_their_channels_innermost_where_nothing_flattens_them(name: str) -> None:
    method, *more = name.split()
    with pretend():
        run = begin(words("resnet20", method, "precision=tf32", *more), "cuda")
        weights = [p for p in run.model.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
        assert weights
        assert {not weight.is_contiguous() for weight in weights} == {LAYOUTS[name]}


@pytest.mark.parametrize("method", ["set", "rigl", "gse"])
def test_sparse_layers_train_as_on_the_cpu(method: str) -> None:
    check(*both(words("mlp", method, "backend=sparse")))


OTHERS = {
    "adamw": ("gse", "optimizer=adamw"),
    "all layers in one pool": ("rigl", "scope=global"),
    "a batch of its own": ("rigl", "method.batch=fresh"),
    "GraBo": ("gse", "subset=grabo"),
    "GraEst": ("gse", "subset=graest"),
    "by sign": ("set", "prune=sign"),
    "by chance": ("set", "prune=random"),
    "powers of weights": ("static", "powerprop=2"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_train_as_on_the_cpu(name: str) -> None:
    method, *more = OTHERS[name]
    check(*both(words("mlp", method, *more)))


@pytest.mark.parametrize("network", [SMALL["resnet20"], ("model=vit",)], ids=["resnet20", "vit"])
def test_augmented_images_and_attention(network: tuple[str, ...], noise: tuple[str, ...]) -> None:
    check(*both([*noise, *network, "method=gse", *SOON]))


@pytest.mark.parametrize("name", ["gse", "deepr", "gse optimizer=adamw", "gse precision=tf32"])
def test_a_run_goes_on_from_a_file(name: str) -> None:
    """What is read to the CPU ends up where it was: else the next step mixes devices, or waits more often."""
    method, *more = name.split()
    with pretend():
        network = "resnet20" if "precision=tf32" in more else "mlp"
        whole, again = (begin(words(network, method, *more), "cuda") for _ in range(2))
        advance(whole, 3)
        saved = io.BytesIO()
        torch.save(whole.state(), saved)
        saved.seek(0)
        again.load_state(torch.load(saved, weights_only=True))
        straight, resumed = (advance(run, 2)[-1] for run in (whole, again))  # the first of a process sets the rate up
        assert resumed.loss == straight.loss
        assert resumed.tally.waits == straight.tally.waits
        for one, other in zip(numbers(whole), numbers(again), strict=True):
            assert torch.equal(one, other)
