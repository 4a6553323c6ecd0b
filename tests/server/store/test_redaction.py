"""Redaction: the default patterns are those that one would write first, only faster."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from winnow.server.store.redaction import DEFAULT_REDACTIONS, REDACTED, Redactor

PLAIN = (
    r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b",
    r"\+\d[\d ().-]{6,18}\d\b",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    r"\b(?:\d[ -]?){12,18}\d\b",
    r"\b(?:sk|pk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,}\b",
)
PARTS = [
    "anna@example.org",
    "+49 (30) 1234567",
    "DE89 3704 0044 0532 0130 00",
    "4111 1111 1111 1111",
    "sk-abcdefghijklmnop1234",
    "xoxb_ABCDEFGHIJKLMNOPQR",
    "gho-0123456789abcdef",
    *("a", "Z", "9", "_", "-", "é", "日", "٣", ".", "\n", "@", "+", "s", "sk-", "pk", "gh"),
    " ",
    "",
]


def plainly(text: str) -> str:
    for pattern in PLAIN:
        text = re.sub(pattern, REDACTED, text)
    return text


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=6), max_size=8).map("".join))
@example("".join(PARTS))
@example("\n".join(PARTS))
def test_the_patterns_match_what_the_plain_ones_match(text: str) -> None:
    assert Redactor(DEFAULT_REDACTIONS).text(text) == plainly(text)


@pytest.mark.parametrize("part", PARTS[:7])
def test_each_kind_is_redacted(part: str) -> None:
    redactor = Redactor(DEFAULT_REDACTIONS)
    assert redactor.text(f"My {part}, please.") == f"My {REDACTED}, please."
    assert redactor.text(part) == REDACTED


@pytest.mark.parametrize("unit", ["a", "9", "A", "a.", "9 ", "AA11", "s", "a@a.", "+1", "sk-"])
def test_none_takes_long_on_a_long_text(unit: str) -> None:
    """Hypothesis' deadline does not hold for parameters; the text is so long that quadratic time would be minutes."""
    Redactor(DEFAULT_REDACTIONS).text(unit * (200_000 // len(unit)))
