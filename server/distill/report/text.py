"""How a report writes numbers, and strings that nobody checked."""

from __future__ import annotations

import re
import unicodedata

from winnow.models.statistics import Interval

NOTHING = "–"
MOST_CHARACTERS = 6000
_SPACE, _MINUS = "\u00a0", "\u2212"
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need, and that cannot reorder or hide a text."""
_ODD = re.compile(r"[^\n\t -~\u00a1-\u00ac\u00ae-\u02ff]")


def visible(text: str) -> str:
    """`text` as it can be shown: what would vanish, reorder or break a page (control and format characters, lone surrogates,
    line separators) stands there as a picture, ␀, or as its number, ⟨U+202E⟩. A long text is cut, and says so."""
    shown = _ODD.sub(_spelled, text[:MOST_CHARACTERS])
    left = len(text) - MOST_CHARACTERS
    return shown if left <= 0 else f"{shown} … ({count(left)} more characters)"


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    if character in _JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def number(value: float | None, digits: int = 3) -> str:
    """As `0.812`."""
    return NOTHING if value is None else f"{_rounded(value, digits):.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """As `+0.012`."""
    return NOTHING if value is None else f"{_rounded(value, digits):+.{digits}f}".replace("-", _MINUS)


def _rounded(value: float, digits: int) -> float:
    """Rounded, and never a negative zero."""
    return round(value, digits) + 0.0


def count(value: int) -> str:
    """As `12,345`."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """As `12.3 %`; a dash of nothing."""
    return percent(part / whole) if whole else NOTHING


def percent(value: float) -> str:
    """As `12.3 %`."""
    return f"{_rounded(100 * value, 1):.1f}{_SPACE}%".replace("-", _MINUS)


def span(interval: Interval | None, digits: int = 3) -> str:
    """The ends of an interval, as `0.790 to 0.833`."""
    if interval is None:
        return NOTHING
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}".replace(" ", _SPACE)


def percent_span(interval: Interval) -> str:
    """The ends of an interval of shares, as `10.1 % to 12.5 %`."""
    return f"{percent(interval.low)} to {percent(interval.high)}"
