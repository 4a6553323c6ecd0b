"""The formats of numbers in reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from winnow.models.statistics import Interval

NOTHING = "–"
_SPACE, _MINUS = "\u00a0", "\u2212"


def number(value: float | None, digits: int = 3) -> str:
    """Format as `0.812`; a dash for None."""
    return NOTHING if value is None else f"{_rounded(value, digits):.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """Format as `+0.012`; a dash for None."""
    return NOTHING if value is None else f"{_rounded(value, digits):+.{digits}f}".replace("-", _MINUS)


def _rounded(value: float, digits: int) -> float:
    """Round, and turn a negative zero into 0."""
    return round(value, digits) + 0.0


def count(value: int) -> str:
    """Format as `12,345`."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """Format `part` of `whole` as `12.3 %`; a dash if `whole` is 0."""
    return percent(part / whole) if whole else NOTHING


def percent(value: float) -> str:
    """Format as `12.3 %`."""
    return f"{_rounded(100 * value, 1):.1f}{_SPACE}%".replace("-", _MINUS)


def span(interval: Interval | None, digits: int = 3) -> str:
    """Format the ends of an interval as `0.790 to 0.833`; a dash for None."""
    if interval is None:
        return NOTHING
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}".replace(" ", _SPACE)


def percent_span(interval: Interval) -> str:
    """Format the ends of an interval of shares as `10.1 % to 12.5 %`."""
    return f"{percent(interval.low)} to {percent(interval.high)}"
