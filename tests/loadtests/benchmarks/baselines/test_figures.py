"""Ratios, intervals and goals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from winnow.loadtests.benchmarks.baselines.figures import GOALS, Figures, Run, p50_ms, throughput
from winnow.loadtests.benchmarks.pages import UNKNOWN, with_interval
from winnow.models.statistics import Interval


def run(system: str, number: int, *latencies: float, scene: str = "one", seconds: float = 10.0, **fields: Any) -> Run:
    return Run(scene, system, number, seconds, latencies, tokens=0, failed=0, **fields)


def test_percentiles_are_values_that_occurred() -> None:
    figures = Figures((run("vllm", 1, 5.0, 1.0, 3.0), run("vllm", 2, 2.0, 4.0)))
    assert [figures.latency("one", "vllm", percent) for percent in (0, 20, 50, 90, 99, 100)] == [1, 1, 3, 5, 5, 5]
    assert math.isnan(figures.latency("one", "missing", 50))


def test_an_interval_is_the_median_and_the_range_of_the_rounds() -> None:
    figures = Figures(tuple(run("vllm", number, value) for number, value in enumerate((3.0, 1.0, 2.0))))
    found = figures.interval("one", "vllm", lambda run: run.p50)
    assert found == Interval(2.0, 1.0, 3.0, 3)
    assert with_interval(found, "{:.1f}".format) == "2.0 (1.0 to 3.0)"
    assert with_interval(figures.interval("one", "missing", p50_ms), "{:.1f}".format) == UNKNOWN


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down between rounds must not change them."""
    figures = Figures(
        (
            run("winnow", 1, 2.0),
            run("vllm", 1, 1.0),
            run("vllm", 2, 10.0),
            run("winnow", 2, 20.0),
            run("winnow", 3, 7.0),
        )
    )
    assert figures.compared("one", "winnow", "vllm", p50_ms) == Interval(2.0, 2.0, 2.0, 2)
    assert figures.compared("one", "winnow", "vllm", p50_ms, "added") == Interval(5500.0, 1000.0, 10000.0, 2)
    assert figures.compared("one", "winnow", "missing", p50_ms) is None


def test_throughput_counts_answers_only() -> None:
    assert throughput(run("vllm", 1, 1.0, 1.0, seconds=4.0)) == 0.5
    assert math.isnan(throughput(run("vllm", 1, seconds=4.0)))


def test_same_answers_are_matched_by_request() -> None:
    figures = Figures(
        (
            run("winnow", 1, answers=((0, "x"), (1, "y"), (2, "z"))),
            run("its_hub", 1, answers=((0, "x"), (2, "other"))),
            run("its_hub", 2, answers=((1, "y"),)),
        )
    )
    assert figures.same_answers("winnow", "its_hub") == (2, 1)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.scene}-{goal.text}")
def test_a_goal_is_met_at_its_bound_and_missed_beyond(goal: Any) -> None:
    def figures(ratio: float) -> Figures:
        by_latency = goal.measure is p50_ms
        base = run(goal.base, 1, 1.0, scene=goal.scene, seconds=1.0)
        mine = 1.0 + ratio / 1000 if goal.how == "added" else ratio
        latency, seconds = (mine, 1.0) if by_latency else (1.0, 1.0 / mine)
        return Figures((base, run(goal.system, 1, latency, scene=goal.scene, seconds=seconds)))

    worse = 1.01 if goal.is_upper else 0.99
    assert goal.is_met(figures(goal.bound * (2 - worse)))
    assert goal.is_met(figures(goal.bound * worse)) is False
    assert goal.is_met(Figures(())) is None
