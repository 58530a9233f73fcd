import pytest

from dstrun.allocation.budget import budget, met, percent


@pytest.mark.parametrize(
    ("active", "total", "asked", "is_met"),
    [
        (100, 1000, 0.9, True), (101, 1000, 0.9, True), (99, 1000, 0.9, True), (102, 1000, 0.9, False),
        (1_010, 10_000, 0.9, True), (1_011, 10_000, 0.9, False), (990, 10_000, 0.9, True), (989, 10_000, 0.9, False),
        (5, 10, 0.55, True), (1000, 1000, 0.0, True), (22_300, 50_200, 0.9, False),
    ],
)  # fmt: skip
def test_a_budget_is_met_to_one_percent_or_to_one_connection(active, total, asked, is_met):
    assert met(active, total, asked) == is_met


def test_the_budget_rounds():
    assert [budget(10, s) for s in (0.0, 0.94, 0.96)] == [10, 1, 0]


@pytest.mark.parametrize(
    ("sparsity", "said"), [(0.612, "61.2"), (0.8957, "89.6"), (0.97431, "97.43"), (0.99954, "99.9540"), (1.0, "100.0")]
)
def test_a_sparsity_is_said_with_three_digits_of_its_density(sparsity, said):
    assert percent(sparsity) == said
