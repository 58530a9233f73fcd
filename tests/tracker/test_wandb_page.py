from __future__ import annotations

import pytest

from dstrun.tracker import page

CHOICES = {"model": "mlp", "dataset": "digits", "method": "dst", "grow": "gse", "subset": "grabo", "allocation": None}


def test_seeds_of_a_configuration_share_a_group() -> None:
    name = "mlp-digits-gse-grabo-s0.9-seed{}-{}"
    one, other = (
        page.page(name.format(seed, digest), {"seed": seed, "backend": "masked"}, CHOICES)
        for seed, digest in ((1, "3f9c2a1b"), (12, "77aa0102"))
    )
    assert one.group == other.group == "mlp-digits-gse-grabo-s0.9"
    assert one.tags == ["gse-grabo", "mlp", "digits", "masked"]


def test_an_epoch_is_shown_with_the_densities_of_its_layers() -> None:
    row = {"epoch": 1, "step": 11, "loss": 0.5, "split": "test"}
    assert page.history(row, {"fc1": 0.1}) == {"epoch": 1, "loss": 0.5, "density/fc1": 0.1}


@pytest.mark.parametrize("record", [None, {"id": "a", "accuracy": {"top1": 90.0}, "flops": {"train": 3}}])
def test_the_summary_says_how_a_run_ended(record: dict | None) -> None:
    numbers = {"accuracy/top1": 90.0, "flops/train": 3} if record else {}
    assert page.summary("lost", record) == {"state": "lost"} | numbers
