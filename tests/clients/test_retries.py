from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.clients.errors import ConnectionFailed, Overloaded
from winnow.clients.retries import TRANSIENT_STATUSES, is_transient, pause_before_retry, retry_after

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


def transient() -> ConnectionFailed:
    error = ConnectionFailed("refused")
    error.is_transient = True
    return error


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_pauses_and_their_number_are_bounded(retried: int, most: int) -> None:
    pause = pause_before_retry(transient(), retried, most)
    assert (pause is None) == (retried >= most)
    assert pause is None or 0.5 <= pause <= 8.0


@pytest.mark.parametrize("retried", range(6))
def test_pauses_grow_and_differ(retried: int) -> None:
    """Clients that were refused at the same time must not all retry at the same time."""
    pauses = [pause_before_retry(transient(), retried, 9) or 0.0 for _ in range(50)]
    ceiling = min(2.0**retried, 8.0)
    assert ceiling / 2 <= min(pauses) < max(pauses) <= ceiling


def test_a_permanent_failure_is_not_retried() -> None:
    assert pause_before_retry(ConnectionFailed("cut off"), 0, 9) is None


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 0.0), (60.0, 60.0), (60.5, None), (float("inf"), None)])
def test_retry_after_is_honoured_up_to_a_limit(seconds: float, pause: float | None) -> None:
    busy = Overloaded("full", retry_after=seconds)
    busy.is_transient = True
    assert pause_before_retry(busy, 0, 9) == pause


@given(st.integers(100, 599))
def test_the_header_overrides_the_status(status: int) -> None:
    assert is_transient(status, httpx.Headers()) == (status in TRANSIENT_STATUSES)
    assert is_transient(status, httpx.Headers({"X-Should-Retry": "true"}))
    assert not is_transient(status, httpx.Headers({"X-Should-Retry": "false"}))


@given(st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after(httpx.Headers({"retry-after": date}), NOW) == max(0, seconds)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0.5", 0.5), (" 3 ", 3), ("9" * 400, float("inf"))])
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds


@given(st.text())
def test_any_other_retry_after_is_none(value: str) -> None:
    seconds = retry_after({"retry-after": value}, NOW)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("value", ["", "-1", "nan", "inf", "1e3", "soon", "٣"])
def test_an_invalid_retry_after_is_none(value: str) -> None:
    assert retry_after({"retry-after": value}, NOW) is None
