"""What cannot be predicted is said; a fault of the program shows."""

from dataclasses import replace

import pytest
from torch._subclasses.fake_tensor import UnsupportedFakeTensorException

from dstrun.config.composition import compose
from dstrun.run import plan

WORDS = ["model=mlp", "dataset=digits", "method=static"]


def raising(monkeypatch, error):
    def fail(experiment):
        raise error

    monkeypatch.setattr(plan, "predict_memory", fail)


def test_what_pytorch_cannot_do_is_said(monkeypatch):
    raising(monkeypatch, UnsupportedFakeTensorException("no meta kernel\nmore"))
    found = plan.planned_memory(compose(WORDS))
    assert found["how"] == "cannot be predicted (UnsupportedFakeTensorException: no meta kernel)"
    assert found["peak_bytes"] is None


@pytest.mark.parametrize("error", [TypeError("no"), RuntimeError("no"), AssertionError("no")], ids=repr)
def test_a_fault_shows_unless_a_network_of_ones_own_may_be_the_cause(error, monkeypatch):
    raising(monkeypatch, error)
    experiment = compose(WORDS)
    with pytest.raises(type(error), match="no"):
        plan.planned_memory(experiment)
    own = {**experiment.config["model"], "_target_": "mine.Net"}
    found = plan.planned_memory(replace(experiment, config=experiment.config | {"model": own}))
    assert found["how"].startswith("cannot be predicted")
