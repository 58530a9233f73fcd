"""Tasks that threads share."""

from __future__ import annotations

import random

import pytest

from dstrun.backend.sparse.kernel.turns import begin, next_task


@pytest.mark.parametrize(("threads", "tasks"), [(1, 5), (2, 7), (3, 2), (4, 0), (5, 64)])
def test_every_task_is_done_once_whoever_is_held_up(threads: int, tasks: int) -> None:
    order = random.Random(0)
    taken, done = begin(threads), []
    asking = list(range(threads))
    while asking:
        thread = order.choice(asking)
        task = next_task(taken, thread, tasks)
        if task == tasks:
            asking.remove(thread)
        else:
            done.append(task)
    assert sorted(done) == list(range(tasks))


def test_each_has_neighbours_of_its_own_and_then_helps() -> None:
    taken = begin(2)
    assert [next_task(taken, 1, 6) for _ in range(3)] == [3, 4, 5]
    assert next_task(taken, 0, 6) == 0
    assert [next_task(taken, 1, 6) for _ in range(3)] == [1, 2, 6]
    assert next_task(taken, 0, 6) == 6
