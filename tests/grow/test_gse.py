import math

import pytest
import torch

from dstrun.grow.gse import GSE
from dstrun.layer.criterion import Cost
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.growth import GrowthContext
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform
from dstrun.system.trouble import ConfigError

SUBSETS = [Uniform(), GraBo(), GraEst()]


def context(active, shape=(6, 10)):
    generator = torch.Generator().manual_seed(0)
    positions = torch.randperm(shape[0] * shape[1], generator=generator)[:active].sort().values
    x, delta = torch.randn(5, shape[1], generator=generator), torch.randn(5, shape[0], generator=generator)
    return GrowthContext(LinearGeometry(shape), active, positions, 3, generator, x, delta)


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.0, 1.05, 2.0, 100.0])
@pytest.mark.parametrize("active", [1, 7, 20, 40, 60])
def test_exact_draws_gamma_times_the_active_or_all_inactive(subset, gamma, active):
    asked = context(active)
    found = GSE(subset=subset, gamma=gamma).candidates(asked).tolist()
    assert len(found) == min(math.ceil(gamma * active), 60 - active)
    assert len(set(found)) == len(found)
    assert not set(found) & set(asked.blocked.tolist())


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("active", [7, 40, 60])
def test_single_loses_repeated_and_active_ones(subset, active):
    asked = context(active)
    found = GSE(subset=subset, gamma=3.0, sampling="single").candidates(asked).tolist()
    assert len(found) < 3 * active
    assert len(set(found)) == len(found)
    assert not set(found) & set(asked.blocked.tolist())


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("active", [1, 7, 40, 60])
def test_a_plan_expects_as_many_as_are_drawn(gamma, active):
    exact, single = (GSE(subset=Uniform(), gamma=gamma, sampling=name) for name in ("exact", "single"))
    asked = context(active)
    assert exact.expected_candidates(active, 60) == len(exact.candidates(asked))
    drawn = [len(single.candidates(asked)) for _ in range(600)]  # the generator goes on from draw to draw
    mean = sum(drawn) / 600
    assert single.expected_candidates(active, 60) == pytest.approx(mean, abs=0.75)  # rounding, and 4 standard errors
    most = GSE(subset=GraBo(), gamma=gamma, sampling="single").expected_candidates(active, 60)
    assert most == exact.expected_candidates(active, 60)


def test_scores_are_magnitudes():
    asked = context(7)
    assert GSE(subset=Uniform()).score(torch.tensor([-3.0, 2.0]), torch.tensor([1, 2]), asked).tolist() == [3, 2]


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda s: type(s).__name__)
def test_what_accounting_reads(subset):
    criterion = GSE(subset=subset)
    assert (criterion.cost, criterion.regrow) == (Cost.CANDIDATE_GRAD, False)
    assert criterion.aggregates == (not isinstance(subset, Uniform))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": 0}, "grow.gamma=0 must be above 0"),
        ({"gamma": float("inf")}, "grow.gamma=inf must be a number"),
        ({"sampling": "exat"}, "grow.sampling=exat is not known: choose exact, single (did you mean exact?)"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ConfigError) as error:
        GSE(subset=Uniform(), **wrong)
    assert str(error.value) == message
