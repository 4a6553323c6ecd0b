"""Dialogs inside a row: lists of messages by any of their names, and transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from winnow.models.errors import BadLine
from winnow.models.types import Message

MOST_SHOWN = 300
ROLES = {
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Other names for the roles system, user and assistant; capitals do not matter."""
_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_ANSWERED = re.compile(r"\s*Human:.*?\r?\n\r?\nAssistant:", re.DOTALL)
_CALLS = ("tool_calls", "function_call")
"""Keys of an assistant message that calls tools, in OpenAI's files."""


def printable(text: str) -> str:
    """Return text from the input, bounded, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:MOST_SHOWN])


def messages(key: str, value: object) -> list[Message]:
    """Return the messages of the list under `key`.

    Raises:
        BadLine: it is no list, or one of its messages is malformed.
    """
    if not isinstance(value, list):
        raise BadLine("invalid_type", f"{key} must be a list of messages")
    return [message(f"{key}[{index}]", item) for index, item in enumerate(value)]


def message(place: str, item: object) -> Message:
    """Return a message with `role` and `content`, ShareGPT's `from` and `value`, or oasst's `role` and `text`."""
    given = {key: value for key, value in item.items() if value is not None} if isinstance(item, Mapping) else {}
    role = given.get("role", given.get("from"))
    content = given.get("content", given.get("value", given.get("text")))
    if isinstance(content, list):
        content = joined(f"{place}.content", content)
    if call := next((key for key in _CALLS if given.get(key)), None):
        raise BadLine("unsupported", f"{place} has {call}, and there is no tool calling; leave such dialogs out")
    if not (isinstance(role, str) and isinstance(content, str)):
        raise BadLine(
            "invalid_type", f"{place} must be an object with role and content (or from and value), each a text"
        )
    return Message(ROLES.get(role.lower(), role.lower()), content)


def joined(place: str, parts: Sequence[object]) -> str:
    """Return the text of content parts, which must all be texts."""
    return "".join(_part(f"{place}[{index}]", part) for index, part in enumerate(parts))


def _part(place: str, part: object) -> str:
    """Return the text of a content part."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    shown = f"of type {printable(kind)}" if isinstance(kind, str) and kind != "text" else "without a text"
    raise BadLine("unsupported", f"{place} is a part {shown}; parts must have the type text")


def asked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a dialog without the answer at its end, which is the data set's own."""
    return tuple(messages[:-1] if messages and messages[-1].role == "assistant" else messages)


def asked_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a dialog without the answer at its end, where messages of one role in a row are one turn."""
    rest = asked(messages)
    return rest if len(rest) == len(messages) else asked_turns(rest)


def is_transcript(value: object) -> bool:
    """Whether a value is a text of `Human:` and `Assistant:` turns, as in hh-rlhf."""
    return isinstance(value, str) and bool(_ANSWERED.match(value))


def transcript(text: str) -> tuple[Message, ...]:
    """Return the dialog of a transcript, the last answer included."""
    _, *parts = _TURN.split(text)
    roles = [ROLES.get(name.lower(), name.lower()) for name in parts[::2]]
    return tuple(Message(role, turn.strip()) for role, turn in zip(roles, parts[1::2], strict=True))


def holds_prompt(side: object) -> bool:
    """Whether a side of a preference is a dialog or a transcript with its prompt, not an answer alone."""
    if not isinstance(side, list):
        return is_transcript(side)
    roles = (item.get("role") or item.get("from") for item in side if isinstance(item, Mapping))
    return any(isinstance(role, str) and ROLES.get(role.lower(), role.lower()) != "assistant" for role in roles)
