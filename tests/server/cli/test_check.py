from __future__ import annotations

import math

import pytest

from tests.server.api.test_run import winnow
from winnow.server.cli.check import Comparison


def comparison(served: list[float], together: list[float]) -> Comparison:
    return Comparison("safety", reference=[[1.0, 2.0, 3.0]], alone=[served], together=[together])


@pytest.mark.parametrize(
    ("served", "together", "passes"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], True),
        ([1.01, 2.0, 3.0], [1.0, 2.0, 2.99], True),
        ([1.05, 2.0, 3.0], [1.0, 2.0, 3.0], False),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.05], False),
        ([1.0, 2.0, math.nan], [1.0, 2.0, math.nan], False),
        ([0.73, 0.88, 0.95], [0.73, 0.88, 0.95], False),
    ],
)
def test_a_difference_above_the_tolerance_fails(served: list[float], together: list[float], passes: bool) -> None:
    assert comparison(served, together).passes(0.02) == passes


def test_a_rank_changed_by_the_batch_fails_whatever_the_tolerance() -> None:
    changed = comparison([1.0, 2.0, 2.001], [1.0, 2.001, 2.0])
    assert changed.ranks_changed == 1
    assert not changed.passes(2.0)


@pytest.mark.engine
def test_the_demo_models_pass() -> None:
    done = winnow("check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ok ") == 2
    assert "Traceback" not in done.stderr
