"""The margins m(r) of comparisons: how far apart a reward model is to put two answers (Llama 2, equation 2).

A comparison's margin is that of its rating on the paper's four-point scale, or the one that its row states.
"""

from __future__ import annotations

import re
from typing import Literal

from winnow.models.errors import BadLine
from winnow.server.rm.rows import Body

Margins = Literal["small", "large", "none"]
"""The paper's two sets of margins, small from 0 to 1 and large from 0 to 3, or no margins."""
STEPS = {"significantly": 3, "better": 2, "slightly": 1, "negligibly": 0, "unsure": 0}
"""The scale: the first word of a rating, and its number, which is the large margin."""
WANTED = "significantly better, better, slightly better, negligibly better or unsure, or a number from 3 to 0"
MOST = 1000
"""The largest margin that a row may state: losses of larger ones drown all others, up to no finite number."""
_WORDS = re.compile("[a-z]+")


def margin_of(body: Body, size: Margins) -> float | None:
    """Return m(r) of a row; None if it has neither a rating nor a margin, or no margins are wanted.

    A rating comes first. Of the margins that rows state, `margin_small` and `margin_large` are Winnow's own, which are
    turned into the size that is wanted, and `margin` is TRL's, which is taken as it is.

    Raises:
        BadLine: the rating is not on the scale, or the margin is no number from 0 to `MOST`.
    """
    if size == "none":
        return None
    if "rating" in body:
        return _scaled(_step(body["rating"]), size)
    for key, unit in (("margin_small", 3.0), ("margin_large", 1.0)):
        if key in body:
            return _scaled(unit * _number(key, body[key]), size)
    return _number("margin", body["margin"]) if "margin" in body else None


def _scaled(large: float, size: Margins) -> float:
    return large / 3 if size == "small" else large


def _step(rating: object) -> int:
    """Return the place of a rating on the scale, from 0 to 3."""
    if isinstance(rating, str) and rating.strip() in ("0", "1", "2", "3"):
        return int(rating)
    if isinstance(rating, (int, float)) and not isinstance(rating, bool) and rating in (0, 1, 2, 3):
        return int(rating)
    words = _WORDS.findall(rating.lower()) if isinstance(rating, str) else []
    is_whole = bool(words) and set(words[1:]) <= {"better", "or", "unsure"}
    if not is_whole or words[0] not in STEPS:
        raise BadLine("invalid_value", f"rating must be {WANTED}; --margins none passes over it")
    return STEPS[words[0]]


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise BadLine("invalid_value", f"{key} must be a number from 0 to {MOST}; --margins none passes over it")
    return float(value)
