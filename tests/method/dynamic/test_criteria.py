"""Updates of dynamic sparse training by other criteria than magnitude."""

from dstrun.grow.random import Random
from dstrun.prune.importance import Importance
from dstrun.prune.sign import Sign

# Eight weights: half active.
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
GRADIENT = [9.0, 3.0, -2.5, 1.0, 0.1, 2.0, -9.0, 0.0]


def test_an_update_sees_the_gradient_of_its_step(bench):
    # The step leaves 0: 0.41, 1: -0.13, 4: 0.199, 6: -0.81; with 0.1 |g| position 4 is the least, not 1.
    made = bench((WEIGHTS, GRADIENT), lr=0.01).start(Random(), fraction=0.25, prune=Importance(coefficient=0.1), seed=3)
    hook, update = made.step()
    assert hook == "after"
    assert update.changes[0].pruned == 1
    assert set(made.weights()) & set(WEIGHTS) >= {0, 1, 6}


def test_set_by_its_own_rule_takes_of_both_signs(bench):
    # Of 0.5 and 0.6 the first goes, of -0.1 and -0.2 the first: by magnitude it would be the two negative ones.
    weights = {0: 0.5, 1: -0.1, 4: 0.6, 6: -0.2}
    for seed in range(5):
        made = bench((weights, [0.0] * 8)).start(Random(), prune=Sign(), seed=seed)
        made.step()
        assert {4, 6} <= set(made.weights())
        assert all(made.weights().get(p, 0) in (0, w) for p, w in weights.items())
        assert len(made.weights()) == 4
