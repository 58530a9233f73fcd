import pytest

from dstrun.config.composition import compose
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan

MLP = ["model=mlp", "dataset=digits", "sparsity=0.9"]


def said(*words: str) -> str:
    return Blueprint(compose([*MLP, *words])).unmet


def test_a_dense_first_layer_is_said_with_the_sparsity_that_is_real():
    # 64 x 300 dense; of 300 x 100 and 100 x 10 a tenth: 22,300 of 50,200 are left.
    assert said("method=dsr", "allocation=uniform") == (
        "the target is sparsity=0.9, but 55.6 % of prunable weights are zero, as allocation=uniform keeps the "
        "first layer "
        "dense on top"
    )
    assert "55.6 % of prunable weights will be zero" in said("method=gmp", "allocation=uniform")


@pytest.mark.parametrize("method", ["dsr", "deepr", "set", "thin", "snip", "lth", "str sparsity=0"])
def test_what_is_as_asked_is_not_told(method):
    assert said(*f"method={method}".split()) == ""


def test_whole_channels_far_below_the_budget_are_said():
    assert said("method=thinet", "sparsity=0.99") == (
        "the target is sparsity=0.99, but 99.040 % of prunable weights will be zero, as method=thinet keeps "
        "whole channels"
    )


def test_a_plan_has_it_among_its_notes_and_the_sparsity_asked_for():
    made = plan(compose([*MLP, "method=dsr", "allocation=uniform"]))
    assert made["notes"] == [said("method=dsr", "allocation=uniform")]
    assert made["parameters"]["asked"] == 0.9
    assert plan(compose([*MLP, "method=dsr"]))["notes"] == []
    assert plan(compose([*MLP, "method=str", "sparsity=0"]))["parameters"]["asked"] is None
