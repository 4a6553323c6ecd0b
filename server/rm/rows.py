"""The layouts of labelled answers: under which keys data sets keep an answer and whether it is safe.

A row of `LAYOUTS` tells one apart by its keys and reads it. docs/models.md shows an example of each. Nothing is
guessed: a row that could be read in two ways, or in none, is a bad row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.distill.dialogs import is_transcript, messages, printable, transcript

Body = Mapping[str, Any]
"""A row without its nulls."""
SAFE_KEYS = ("is_safe", "is_response_safe", "safe")
UNSAFE_KEYS = ("harmful", "is_harmful", "unsafe")
PAIR_KEYS = ("chosen_safe", "rejected_safe")
"""Labels of the two sides of a preference."""
HELPFUL_KEYS = {
    "is_helpful": "is_safe",
    "is_response_0_helpful": "is_response_0_safe",
    "is_response_1_helpful": "is_response_1_safe",
    "chosen_helpful": "chosen_safe",
    "rejected_helpful": "rejected_safe",
}
"""Labels of helpfulness, and the labels of safety that stand in their places."""
ANSWER_KEYS = ("response", "answer", "completion")
HARMLESS_KEYS = {"prompt_harmful": False, "is_prompt_harmful": False, "prompt_safe": True, "is_prompt_safe": True}
"""Keys that say what a prompt is, with the value that means harmless."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a conversation, as a reward model scores it."""

    messages: tuple[Message, ...]
    text: str

    @property
    def prompt(self) -> str:
        """A key that equal conversations share, and no others."""
        return prompt_key(self.messages)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer that people labelled as safe or unsafe, or for a helpfulness model as helpful or not.

    `is_harmless_prompt` is True for a prompt that is marked as harmless, such as one that only looks harmful.
    """

    answer: Answer
    is_unsafe: bool
    is_harmless_prompt: bool | None = None


class Layout(NamedTuple):
    """A layout: the test for rows that have it, and the function that reads them."""

    fits: Callable[[Body], bool]
    read: Callable[[Body], list[Labelled]]


def labelled(body: Body) -> list[Labelled]:
    """Return the labelled answers of a row.

    Raises:
        BadLine: the row has none, or is malformed.
    """
    for layout in LAYOUTS:
        if layout.fits(body):
            return layout.read(body)
    raise BadLine("unknown_shape", f"the row has no {WANTED}; its keys: {keys_of(body)}")


def keys_of(body: Body) -> str:
    """Return the first keys of a row, for an error."""
    return printable(", ".join(list(body)[:10])) or "none"


def prompt_key(dialog: Sequence[Message]) -> str:
    """Return a key that equal conversations share; white space at the ends of a message does not count."""
    told = [(message.role, message.content.strip()) for message in dialog]
    return hashlib.blake2b(orjson.dumps(told), digest_size=16).hexdigest()


def conversation(body: Body) -> tuple[Message, ...]:
    """Return the conversation under `prompt` or `messages`, which ends with the user's turn.

    Raises:
        BadLine: there is none, there are two, or it does not end so.
    """
    found = [key for key in ("prompt", "messages") if key in body]
    if len(found) != 1:
        raise BadLine("ambiguous", "a row has either prompt or messages")
    value = body[found[0]]
    if is_transcript(value):
        dialog = transcript(value)
        # "Assistant:" at the end of a prompt is where the answer stands.
        dialog = dialog[:-1] if dialog[-1].role == "assistant" and not dialog[-1].content else dialog
    elif isinstance(value, str):
        dialog = (Message("user", value),)
    else:
        dialog = tuple(messages(found[0], value))
    return checked(found[0], dialog)


def checked(key: str, dialog: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation that an answer can follow.

    Raises:
        BadLine: its last turn is not the user's, or is blank.
    """
    if not dialog or dialog[-1].role != "user" or not dialog[-1].content.strip():
        raise BadLine("empty_prompt", f"{key} does not end with a message of the user's")
    return tuple(dialog)


def text(key: str, value: object) -> str:
    """Return an answer, which may be empty.

    Raises:
        BadLine: it is no text.
    """
    if not isinstance(value, str):
        raise BadLine("invalid_type", f"{key} must be a text")
    return value


def truth(key: str, value: object) -> bool:
    """Return a label: true or false, or 1 or 0, which a table with gaps has as 1.0 or 0.0.

    Raises:
        BadLine: it is neither.
    """
    if not (isinstance(value, (int, float)) and value in (0, 1)):
        raise BadLine("invalid_type", f"{key} must be true or false")
    return bool(value)


def harmless(body: Body) -> bool | None:
    """Return whether the row says that its prompt is harmless; None if it does not say.

    Raises:
        BadLine: what it says is neither true nor false.
    """
    said = [truth(key, body[key]) is meaning for key, meaning in HARMLESS_KEYS.items() if key in body]
    if len(set(said)) > 1:
        raise BadLine("ambiguous", "the row's labels of its prompt contradict each other")
    return said[0] if said else None


def labels_of_safety(body: Body) -> set[str]:
    """Return the keys of a row under which answers are labelled as safe or unsafe."""
    return {*SAFE_KEYS, *UNSAFE_KEYS, *PKU[2:], *PAIR_KEYS} & body.keys()


def by_helpfulness(body: Body) -> Body:
    """Return a row with its labels of helpfulness in place of those of safety, which are left out.

    Raises:
        BadLine: a label is neither true nor false.
    """
    others = labels_of_safety(body)
    rest = {key: value for key, value in body.items() if key not in others and key not in HELPFUL_KEYS}
    return rest | {safe: truth(key, body[key]) for key, safe in HELPFUL_KEYS.items() if key in body}


def _is_unsafe(body: Body) -> bool:
    said = {truth(key, body[key]) for key in UNSAFE_KEYS if key in body}
    said |= {not truth(key, body[key]) for key in SAFE_KEYS if key in body}
    if len(said) != 1:
        raise BadLine("ambiguous", "the row's labels of its answer contradict each other")
    return said.pop()


def _has_label(body: Body) -> bool:
    return any(key in body for key in (*SAFE_KEYS, *UNSAFE_KEYS))


def _read_answer(body: Body) -> list[Labelled]:
    keys = [key for key in ANSWER_KEYS if key in body]
    if len(keys) > 1:
        raise BadLine("ambiguous", f"the row has {' and '.join(keys)}; keep one of them")
    found = Answer(conversation(body), text(keys[0], body[keys[0]]))
    return [Labelled(found, _is_unsafe(body), harmless(body))]


def _read_dialog(body: Body) -> list[Labelled]:
    dialog = messages("messages", body["messages"])
    if not dialog or dialog[-1].role != "assistant":
        raise BadLine("invalid_type", "messages must end with the assistant's answer, or the row needs a response")
    found = Answer(checked("messages before the answer", dialog[:-1]), dialog[-1].content)
    return [Labelled(found, _is_unsafe(body), harmless(body))]


PKU = ("response_0", "response_1", "is_response_0_safe", "is_response_1_safe")


def _read_two_answers(body: Body) -> list[Labelled]:
    dialog = conversation(body)
    return [
        Labelled(
            Answer(dialog, text(f"response_{place}", body[f"response_{place}"])),
            not truth(f"is_response_{place}_safe", body[f"is_response_{place}_safe"]),
            harmless(body),
        )
        for place in (0, 1)
    ]


LAYOUTS = (
    Layout(lambda body: all(key in body for key in PKU), _read_two_answers),
    Layout(lambda body: _has_label(body) and any(key in body for key in ANSWER_KEYS), _read_answer),
    Layout(lambda body: _has_label(body) and "messages" in body, _read_dialog),
)
WANTED = f"answer with a label (prompt or messages, {ANSWER_KEYS[0]}, and {SAFE_KEYS[0]} or {UNSAFE_KEYS[0]})"
"""The parts that a row needs, for errors."""
