from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario import Point, Scenario
from winnow.loadtests.scenario_files import read

KEYS: dict[str, Any] = {
    "name": "mine",
    "prompts": ["Hello!"],
    "candidates": 4,
    "max_tokens": 8,
    "requests": 3,
    "concurrency": 1,
}
POISSON = {"kind": "poisson", "rate": 2.0}


def scenario(**changes: Any) -> Scenario:
    return read({key: value for key, value in {**KEYS, **changes}.items() if value is not None}, "mine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidate": 3}, "unknown key 'candidate'; the nearest is 'candidates'"),
        ({"concurrency": None, "arrivals": {"kind": "poisson", "rats": 3}}, "'arrivals.rats'; the nearest is 'rate'"),
        ({"prompts": [[{"role": "user", "content": "a", "text": "b"}]]}, "the nearest is 'content'"),
        ({"concurrency": None, "arrivals": {"kind": "poison", "rate": 3}}, "'poisson'"),
        ({"candidates": 0}, "candidates"),
        ({"candidates": "4"}, "candidates"),
        ({"candidates": []}, "candidates"),
        ({"prompts": None}, "either prompts or prompts_file"),
        ({"prompts_file": "x"}, "either prompts or prompts_file"),
        ({"arrivals": POISSON}, "either arrivals"),
        ({"concurrency": None}, "either arrivals"),
        ({"requests": None}, "requests or seconds"),
        ({"concurrency": None, "arrivals": {"kind": "ramp", "rates": [1.0, 2.0]}}, "a ramp"),
        ({"options": {"seed": 3}}, "options.seed"),
        ({"options": {"model": "other"}}, "options.model"),
        ({"slo_ms": 0}, "slo_ms"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_an_invalid_scenario_is_an_error_that_names_the_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match="mine: ") as caught:
        scenario(**changes)
    assert words in str(caught.value)


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
)
def test_lists_make_a_sweep_over_all_combinations(sizes: list[int], clients: list[int]) -> None:
    points = scenario(candidates=sizes, concurrency=clients).points
    assert points == tuple(Point(size, None, count) for size in sizes for count in clients)
    assert len({point.label for point in points}) == len(points)


def test_rates_can_be_swept() -> None:
    points = scenario(concurrency=None, arrivals={"kind": "constant", "rate": [1, 2.5]}).points
    assert [point.label for point in points] == ["K = 4 · 1/s", "K = 4 · 2.5/s"]


def test_every_key_is_documented() -> None:
    assert all(field.description for field in Scenario.model_fields.values())
