"""The layouts of preferences: better and worse answers to one conversation.

As in `winnow.server.rm.rows`, each layout is told by its keys, and nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.distill.dialogs import holds_prompt, is_transcript, messages, transcript
from winnow.server.rm.rows import LAYOUTS as LABELLED
from winnow.server.rm.rows import (
    PAIR_KEYS,
    WANTED,
    Answer,
    Body,
    Labelled,
    by_helpfulness,
    checked,
    conversation,
    harmless,
    keys_of,
    labelled,
    labels_of_safety,
    text,
    truth,
)

_MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*["'](role|content|from|value)["']\s*:""")
"""The beginning of messages that a table has as JSON, or as Python shows them."""
CATEGORY_KEYS = ("subset", "category", "harm_category")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers that people preferred to others.

    `rating` is how clearly, by name, and `margin` in numbers. `better_first` says whether the better answer was listed
    first, None where the layout itself puts it there.
    """

    better: tuple[Answer, ...]
    worse: tuple[Answer, ...]
    rating: str | None = None
    margin: float | None = None
    category: str | None = None
    better_first: bool | None = None


class Layout(NamedTuple):
    """A layout: the test for rows that have it, and the function that reads them."""

    fits: Callable[[Body], bool]
    read: Callable[[Body, str], list[Comparison]]


def rows_of(body: Body, role: str) -> list[Labelled | Comparison]:
    """Return the labelled answers and the comparisons of a row; `role` is the model's, safety or helpfulness.

    For a helpfulness model labels of helpfulness count, and those of safety do not.

    Raises:
        BadLine: the row has neither, or is malformed.
    """
    passed_over = labels_of_safety(body) if role == "helpfulness" else set()
    if role == "helpfulness":
        body = by_helpfulness(body)
    found: list[Labelled | Comparison] = []
    comparison = next((layout for layout in LAYOUTS if layout.fits(body)), None)
    has_labels = any(layout.fits(body) for layout in LABELLED)
    if passed_over and not (comparison or has_labels):
        raise BadLine("unknown_shape", f"{min(passed_over)} says nothing of helpfulness; is_helpful would")
    compared = comparison.read(body, role) if comparison else []
    found += compared
    if comparison and "chosen" in body:
        found += [label for one in compared for label in _labels_of_sides(body, one)]
    elif has_labels:
        found += labelled(body)
    if not (comparison or has_labels):
        raise BadLine(
            "unknown_shape",
            f"the row has neither chosen and rejected answers nor an {WANTED}; its keys: {keys_of(body)}",
        )
    return found


def safety_labels(body: Body) -> list[Labelled]:
    """Return the labelled answers of a row: those of both sides of a preference with labels, as annotations are.

    Raises:
        BadLine: the row has none, or is malformed.
    """
    if "chosen" in body and any(key in body for key in PAIR_KEYS):
        return [item for item in rows_of(body, "safety") if isinstance(item, Labelled)]
    return labelled(body)


def _labels_of_sides(body: Body, found: Comparison) -> list[Labelled]:
    """Return the labels of chosen and rejected answers."""
    sides = zip(PAIR_KEYS, (found.better, found.worse), strict=True)
    return [
        Labelled(answer, not truth(key, body[key]), harmless(body))
        for key, answers in sides
        if key in body
        for answer in answers
    ]


def _read_two_responses(body: Body, role: str) -> list[Comparison]:
    """Return a row of PKU-SafeRLHF: its safer answer for a safety model, else its better one."""
    key = "safer_response_id" if role == "safety" else "better_response_id"
    if body.get(key) not in (0, 1) or isinstance(body[key], bool):
        raise BadLine("invalid_type", f"{key} must be 0 or 1")
    dialog, place = conversation(body), int(body[key])
    answers = [Answer(dialog, text(f"response_{one}", body[f"response_{one}"])) for one in (0, 1)]
    return [_compared(body, (answers[place],), (answers[1 - place],), better_first=place == 0)]


def _read_pair(body: Body, _: str) -> list[Comparison]:
    """Return a pair, with its prompt in both sides (implicit) or under `prompt` (explicit)."""
    sides = (body["chosen"], body["rejected"])
    if any(map(holds_prompt, sides)):
        better, worse = (_whole(key, side) for key, side in zip(("chosen", "rejected"), sides, strict=True))
        if better.prompt != worse.prompt:
            raise BadLine("ambiguous", "chosen and rejected differ before their last turn")
        _require_same_prompt(body, better)
    elif "prompt" not in body and "messages" not in body:
        raise BadLine("unknown_shape", "chosen and rejected hold no prompt, and there is none under prompt")
    else:
        dialog = conversation(body)
        better, worse = (
            Answer(dialog, _answer(key, side)) for key, side in zip(("chosen", "rejected"), sides, strict=True)
        )
    return [_compared(body, (better,), (worse,))]


def _read_lists(body: Body, _: str) -> list[Comparison]:
    """Return a row of RewardBench 2: every right answer against every wrong one."""
    dialog = conversation(body)
    better, worse = (tuple(Answer(dialog, text(key, one)) for one in body[key]) for key in ("chosen", "rejected"))
    if not (better and worse):
        raise BadLine("invalid_type", "chosen and rejected must hold an answer each")
    return [_compared(body, better, worse)]


def _compared(
    body: Body, better: tuple[Answer, ...], worse: tuple[Answer, ...], better_first: bool | None = None
) -> Comparison:
    if set(better) & set(worse):
        raise BadLine("ambiguous", "the better answer and the worse one are the same text")
    category = next((body[key] for key in CATEGORY_KEYS if isinstance(body.get(key), str)), None)
    return Comparison(better, worse, _rating(body.get("rating")), _margin(body), category, better_first=better_first)


def _rating(value: object) -> str | None:
    """Return a rating by its name: 2 and 2.0 are the same one."""
    if value is None or isinstance(value, str):
        return value
    if not _is_number(value):
        raise BadLine("invalid_type", "rating must be a text or a number")
    return f"{value:g}"


def _margin(body: Body) -> float | None:
    """Return how much better the answer was found: the difference of two scores, or a margin that the row states."""
    scores = [body.get(key) for key in ("score_chosen", "score_rejected")]
    if all(_is_number(score) for score in scores):
        return round(float(scores[0]) - float(scores[1]), 9)  # type: ignore[arg-type] # 7.2 - 7.0 is 5.2 - 5.0
    stated = next((body[key] for key in ("margin", "margin_small") if _is_number(body.get(key))), None)
    return None if stated is None else float(stated)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(key: str, side: object) -> Answer:
    """Return the last answer of a side that holds its prompt, too."""
    dialog: Sequence[Message] = transcript(side) if isinstance(side, str) and is_transcript(side) else []
    if not dialog:
        dialog = messages(key, side)
    if not dialog or dialog[-1].role != "assistant":
        raise BadLine("invalid_type", f"{key} must end with the assistant's answer")
    return Answer(checked(f"{key} before the answer", dialog[:-1]), dialog[-1].content)


def _answer(key: str, side: object) -> str:
    """Return an answer alone: a text, or one message of the assistant's."""
    if isinstance(side, str):
        if _MESSAGES_AS_TEXT.match(side):
            raise BadLine("invalid_type", f"{key} is a list of messages written as text; give JSON Lines or Parquet")
        return side
    found = messages(key, side)
    if len(found) != 1 or found[0].role != "assistant":
        raise BadLine("invalid_type", f"{key} must be a text, or one message of the assistant's")
    return found[0].content


def _require_same_prompt(body: Body, answer: Answer) -> None:
    """Check that a prompt beside sides that hold it is the same one: one message of the user's, at least.

    `messages` beside them are the chosen side once more (UltraFeedback).
    """
    if "prompt" not in body:
        return
    asked = {message.content.strip() for message in answer.messages if message.role == "user"}
    if conversation({"prompt": body["prompt"]})[-1].content.strip() not in asked:
        raise BadLine("ambiguous", "prompt is not the one in chosen and rejected; keep one of them")


_PKU = ("response_0", "response_1")


def _has_lists(body: Body) -> bool:
    sides = [body.get(key) for key in ("chosen", "rejected")]
    return all(isinstance(side, list) and all(isinstance(one, str) for one in side) for side in sides)


LAYOUTS = (
    Layout(
        lambda body: (
            all(key in body for key in _PKU) and any(key in body for key in ("safer_response_id", "better_response_id"))
        ),
        _read_two_responses,
    ),
    Layout(_has_lists, _read_lists),
    Layout(lambda body: "chosen" in body and "rejected" in body, _read_pair),
)
