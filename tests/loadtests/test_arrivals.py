from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.loadtests import arrivals
from winnow.loadtests.errors import ScenarioError

RATES = st.floats(0.1, 100)
SEEDS = st.integers(0, 2**31 - 1)


@given(RATES, SEEDS, st.integers(1, 200))
def test_poisson_arrivals_ascend_and_depend_only_on_the_seed(rate: float, seed: int, count: int) -> None:
    first, second = (arrivals.until(arrivals.poisson(rate, seed), requests=count) for _ in range(2))
    assert first == second == sorted(first)
    assert len(first) == count
    assert first[0] > 0


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    offsets = arrivals.until(arrivals.poisson(50.0, 7), requests=20_000)
    assert 20_000 / offsets[-1] == pytest.approx(50, rel=0.03)
    gaps = [later - earlier for earlier, later in itertools.pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.06)


@given(RATES, st.floats(0.5, 20))
def test_constant_arrivals_are_equidistant_and_end_after_the_seconds(rate: float, seconds: float) -> None:
    offsets = arrivals.until(arrivals.constant(rate), seconds=seconds)
    assert offsets == [number / rate for number in range(len(offsets))]
    assert offsets[-1] < seconds <= len(offsets) / rate


@given(st.integers(1, 20), st.floats(0.5, 10), st.integers(1, 100))
def test_requests_of_a_burst_arrive_together(size: int, period: float, count: int) -> None:
    offsets = arrivals.until(arrivals.bursts(size, period), requests=count)
    assert offsets == [number // size * period for number in range(count)]


@given(st.lists(RATES, min_size=2, max_size=5), st.floats(1, 20), SEEDS)
def test_a_ramps_offsets_ascend_within_its_seconds(rates: list[float], seconds: float, seed: int) -> None:
    offsets = list(arrivals.ramp(rates, seconds, seed))
    assert offsets == sorted(offsets) == list(arrivals.ramp(rates, seconds, seed))
    assert all(0 < offset <= seconds for offset in offsets)


def test_a_ramp_has_the_given_rates() -> None:
    offsets = list(arrivals.ramp([100.0, 300.0, 100.0], 100.0, 3))
    thirds = [sum(low <= offset < low + 25 for offset in offsets) for low in (0, 25, 50, 75)]
    assert thirds == pytest.approx([3750, 6250, 6250, 3750], rel=0.05)


@given(RATES, SEEDS)
def test_a_flat_ramp_is_a_poisson_process(rate: float, seed: int) -> None:
    flat = arrivals.until(arrivals.ramp([rate, rate], 10.0, seed), requests=50)
    assert flat == pytest.approx(arrivals.until(arrivals.poisson(rate, seed), requests=50, seconds=10.0))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.booleans())
def test_a_trace_returns_the_recorded_offsets(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[float], is_json: bool
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    path.write_text("\n".join(f'{{"at": {offset!r}, "user": 1}}' if is_json else f"{offset!r}\n" for offset in offsets))
    assert arrivals.read_trace(path) == sorted(offsets)


@pytest.mark.parametrize("line", ["-1", "NaN", "Infinity", "true", "soon", '{"when": 1}', '{"at": "1"}', "[1]"])
def test_an_invalid_trace_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(f"0\n{line}\n")
    with pytest.raises(ScenarioError, match="line 2"):
        arrivals.read_trace(path)


def test_an_empty_or_missing_trace_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "absent"):
        with pytest.raises(ScenarioError, match=name):
            arrivals.read_trace(tmp_path / name)


def test_too_many_requests_are_rejected() -> None:
    with pytest.raises(ScenarioError, match="200,000"):
        arrivals.until(arrivals.constant(1e5), seconds=10)
