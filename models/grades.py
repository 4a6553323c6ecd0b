"""A judge's grades: reading one strictly, the logit that it stands for, and text that a judge cannot take for more.

A grade g of [lo, hi] stands for the probability (g − lo + ½) / (hi − lo + 1): monotone, and never 0 or 1. Of grades
from 1 to 10 the lowest stands for 0.05 and the highest for 0.95.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from winnow.models.types import logit

_GRADE = re.compile(r"""\s*(?:\{\s*"grade"\s*:\s*(-?\d{1,4})\s*\}|(-?\d{1,4}))\s*""", re.ASCII)
_CONTROL = re.compile(r"[<>\u2028\u2029\u0085]|\[(?=/?[A-Za-z_]+\d*\])")
"""Signs that control tokens of chat formats begin with, and line ends that JSON leaves alone."""


def parse_grade(text: str, grades: tuple[int, int]) -> int | None:
    """Return the grade that `text` is, as `{"grade": 7}` or `7` and nothing else; None if it is none in range."""
    found = _GRADE.fullmatch(text)
    if not found:
        return None
    grade = int(found[1] or found[2])
    return grade if grades[0] <= grade <= grades[1] else None


def grade_logit(grade: float, grades: tuple[int, int]) -> float:
    """Return the logit of the probability that a grade stands for; `grade` may be an expected one."""
    low, high = grades
    return logit((grade - low + 0.5) / (high - low + 1))


def expected_grade(grade: int, tokens: Any, grades: tuple[int, int]) -> float:
    """Return the mean of the grades that the judge weighed where it wrote `grade`, by their probabilities.

    `tokens` is the API's `logprobs.content`. `grade` itself is returned if it is not one token there, or if the list
    does not say what else was likely. All grades must be one digit: with more, a token might be the beginning of one.
    """
    places = [token for token in tokens if _digit(token) == grade] if isinstance(tokens, list) else []
    if len(places) != 1:
        return float(grade)
    weights: dict[int, float] = {}
    for token in places[0].get("top_logprobs") or ():
        digit, logprob = _digit(token), token.get("logprob") if isinstance(token, Mapping) else None
        if digit is not None and grades[0] <= digit <= grades[1] and isinstance(logprob, int | float) and logprob <= 0:
            weights[digit] = weights.get(digit, 0.0) + math.exp(logprob)
    total = sum(weights.values())
    if grade not in weights or not total > 0:
        return float(grade)
    return sum(digit * weight for digit, weight in weights.items()) / total


def _digit(token: Any) -> int | None:
    text = token.get("token") if isinstance(token, Mapping) else None
    return int(text) if isinstance(text, str) and re.fullmatch(r"\s?[0-9]", text, re.ASCII) else None


def inert(text: str) -> str:
    r"""Return `text` as the inside of a JSON string, on one line, in which no control token of a chat format begins.

    A quotation mark is `\"`, a line end `\n`, and `<` is `\u003c`. So text cannot leave the quotation marks that a
    template puts around it, and a judge's server, which parses control tokens in what it is sent, finds none.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False)[1:-1])


def inert_messages(messages: Iterable[Mapping[str, str]]) -> Sequence[dict[str, str]]:
    """Return messages with inert contents."""
    return [{"role": message["role"], "content": inert(message["content"])} for message in messages]
