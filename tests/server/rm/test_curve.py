"""The journal of a training, and its drawings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.rm.curve import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, Journal, Point, drawings


def point(step: int, loss: float = 1.0) -> Point:
    return Point(step, loss, 0.5, 1e-5)


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_curve_goes_on_after_a_kill(tmp_path: Path, cut: int) -> None:
    """A line that was cut off is passed over, and repeated steps count once."""
    path = tmp_path / "work" / "curve.jsonl"
    first = Journal(path)
    for step in (1, 2, 3, 4):
        first.add(point(step))
    first.close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    second = Journal(path)
    for step in (3, 4, 5):
        second.add(point(step, 2.0))
    second.close()
    assert [(one.step, one.loss) for one in second.points()] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=900), st.booleans())
def test_lines_stay_inside_their_drawing(losses: list[float], has_accuracy: bool) -> None:
    points = [Point(step, loss, 0.5 if has_accuracy else None, 1e-5) for step, loss in enumerate(losses, 1)]
    found = list(drawings(points))
    assert len(found) == 2 + has_accuracy
    for drawing in found:
        places = [tuple(map(float, pair.split(","))) for pair in drawing.line.split()]
        assert len(places) == min(len(losses), MOST_POINTS)
        assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places)
        assert places[0][0] == LEFT


def test_a_step_without_a_finite_loss_leaves_a_gap() -> None:
    loss, *_ = drawings([point(1), point(2, math.nan), point(3)])
    assert len(loss.line.split()) == 2


def test_no_steps_are_not_drawn() -> None:
    assert list(drawings([])) == []


def test_a_flat_accuracy_has_no_heights_above_all() -> None:
    _, accuracy, _ = drawings([Point(step, 1.0, 1.0, 1e-5) for step in (1, 2)])
    assert [label for _, label in accuracy.heights] == ["50 %", "75 %", "100 %"]
