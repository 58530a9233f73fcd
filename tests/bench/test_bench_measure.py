from __future__ import annotations

import pytest

from dstrun.bench import measure


def scripted(log: list[str], name: str, seconds: list[float]):
    left = iter(seconds)

    def task() -> dict[str, float]:
        log.append(name)
        return {"pass": next(left)}

    return task


def test_every_round_begins_with_another_one_and_the_first_does_not_count() -> None:
    log: list[str] = []
    tasks = {name: scripted(log, name, [99.0, 1.0, 2.0]) for name in "abc"}
    timed = measure.turns(tasks, 2, limit=10)
    assert "".join(log) == "abc" + "bca" + "cab"
    assert timed == {name: {"pass": [1.0, 2.0]} for name in "abc"}


def test_who_is_over_the_limit_has_no_further_turn() -> None:
    log: list[str] = []
    tasks = {"slow": scripted(log, "s", [50.0, 3.0]), "quick": scripted(log, "q", [1.0] * 4)}
    timed = measure.turns(tasks, 3, limit=2.9)
    assert timed == {"slow": {"pass": [3.0]}, "quick": {"pass": [1.0] * 3}}
    assert log.count("s") == 2


def test_passes_are_run_in_order_and_timed_after_waiting(monkeypatch) -> None:
    clock, log = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def work(name: str, seconds: float):
        def run() -> None:
            log.append(name)
            clock[0] += seconds

        return run

    def synchronize() -> None:
        log.append("wait")
        clock[0] += 0.25

    timed = measure.interleaved({"a": {"x": work("x", 1), "y": work("y", 2)}}, 1, 10, synchronize)
    assert timed == {"a": {"x": [1.25], "y": [2.25]}}
    assert log == ["wait", "x", "wait", "wait", "y", "wait"] * 2


def test_ratios_are_taken_round_by_round() -> None:
    """The median of ratios, which here is far from the ratio of medians."""
    timed = {"dense": {"f": [4.0, 40.0, 8.0]}, "sparse": {"f": [1.0, 20.0, 8.0]}}
    (dense, ours) = measure.rows(timed)
    assert (dense["median"], ours["median"]) == (8.0, 8.0)
    assert (dense["x_q1"], dense["x_median"], dense["x_q3"]) == (1.5, 2.0, 3.0)
    assert (ours["x_q1"], ours["x_median"], ours["x_q3"]) == (1.0, 1.0, 1.0)


def test_the_sum_is_of_each_round() -> None:
    timed = {"a": {"f": [1.0, 9.0, 5.0], "g": [9.0, 1.0, 6.0]}, "sparse": {"f": [1.0], "g": [1.0]}}
    found = {(row["implementation"], row["pass"]): row for row in measure.rows(timed)}
    assert found["a", "sum"]["median"] == 10.0
    assert found["a", "sum"]["rounds"] == 3
    assert found["a", "sum"]["x_median"] == 5.0
    assert found["sparse", "f"]["q1"] == found["sparse", "f"]["q3"] == 1.0


def test_a_pass_that_the_reference_has_not_has_no_ratio() -> None:
    (peer, _, total, *_) = measure.rows({"peer": {"f": [1.0], "both": [2.0]}, "sparse": {"f": [0.5], "g": [0.5]}})
    assert peer["x_median"] == 2.0
    assert total["pass"] == "sum"
    assert total["x_median"] == pytest.approx(3.0)
