"""The layouts of rows: under which keys data sets keep a prompt, and how each becomes a dialog.

`LAYOUTS` is the whole table; docs/offline.md shows an example of each. A line of an OpenAI batch is none of
them, see `winnow.server.distill.parser`. A row may hold its prompt in several ways, if they say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.distill.dialogs import asked, holds_prompt, is_transcript, message, messages, printable, transcript

Body = Mapping[str, Any]
"""A row without its nulls."""
Asked = Callable[[Sequence[Message]], tuple[Message, ...]]
"""The rest of a dialog without the data set's own answer at its end; see `winnow.server.distill.dialogs`."""
BATCH = "custom_id"
"""The key of a line of an OpenAI batch."""
DIALOGS = ("messages", "conversations", "conversation")
"""The keys of lists of messages, which may end with the data set's own answer."""
MOST_KEYS = 10
FIRST_TURN = (
    "rows with several turns are answered for the first turn alone: a later one needs the answer to the one before it"
)
ROOTS = "of a thread only its first message is a prompt; replies are passed over"


@dataclass(frozen=True, slots=True)
class Reading:
    """A row's prompt: the dialog to answer, the key it stands under, and a remark on what was left out, if any."""

    messages: tuple[Message, ...]
    key: str
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A row that is a reply within a thread, and so no prompt."""

    remark: str = ROOTS


class Layout(NamedTuple):
    """A layout: its name in errors, the test for rows that have it, and the function that reads them."""

    name: str
    fits: Callable[[Body], bool]
    read: Callable[[Body, Asked], Reading | Reply]


def read(body: Body, asked: Asked = asked) -> Reading | Reply:
    """Return the prompt of a row: of a dialog, what is `asked`.

    Raises:
        BadLine: the row has no known layout, its prompt is malformed, or it has two different prompts.
    """
    found = [(layout.name, layout.read(body, asked)) for layout in LAYOUTS if layout.fits(body)]
    if not found:
        raise BadLine("unknown_shape", f"the row has none of {', '.join(NAMES)}; its keys are: {_keys(body)}")
    readings = [(name, reading) for name, reading in found if isinstance(reading, Reading)]
    if not readings:
        return found[0][1]
    (first, prompt), *others = readings
    if first == "prompt" and others and all(_begins_with(other.messages, prompt.messages) for _, other in others):
        readings = others
    chosen = readings[0][1]
    if any(reading.messages != chosen.messages for _, reading in readings):
        raise BadLine("ambiguous", f"the row has {names_in(body)}, which are not the same prompt; keep one of them")
    return chosen


def names_in(body: Body) -> str:
    """Return the names of the layouts that a row has, for an error."""
    names = [layout.name for layout in LAYOUTS if layout.fits(body)]
    return " and ".join([BATCH, *names] if BATCH in body else names)


def text_of(body: Body, key: str) -> str | None:
    """Return the text under a key; a blank one counts as none."""
    value = body.get(key)
    if not (value is None or isinstance(value, str)):
        raise BadLine("invalid_type", f"{key} must be a text")
    return value if value and value.strip() else None


def _keys(body: Body) -> str:
    keys = printable(", ".join(islice(body, MOST_KEYS))) or "none"
    nested = next((key for key, value in body.items() if isinstance(value, list) and value and _is_row(value[0])), None)
    return keys + (f" (if the rows are the list under {printable(nested)}, write that list alone)" if nested else "")


def _is_row(value: object) -> bool:
    return isinstance(value, Mapping) and any(layout.fits(value) for layout in LAYOUTS)


def _begins_with(whole: Sequence[Message], start: Sequence[Message]) -> bool:
    """Whether a dialog begins with another one; a system message that only it has does not count."""
    if start and start[0].role != "system":
        whole = [message for message in whole if message.role != "system"]
    pairs = zip(whole, start, strict=False)
    return len(whole) >= len(start) and all(
        (one.role, one.content.strip()) == (other.role, other.content.strip()) for one, other in pairs
    )


# One function a layout


def _read_prompt(body: Body, asked: Asked) -> Reading:
    value = body["prompt"]
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):  # the root of an oasst tree
        return Reading((message("prompt", value),), "prompt", ROOTS if value.get("replies") else None)
    if is_transcript(value):
        return Reading(asked(transcript(value)), "prompt")
    if isinstance(value, str):
        return Reading((Message("user", value),), "prompt")
    if not isinstance(value, list):
        raise BadLine("invalid_type", "prompt must be a text or a list of messages")
    return Reading(tuple(messages("prompt", value)), "prompt")


def _dialog(key: str) -> Layout:
    """Return the layout of a list of messages under `key`."""
    return Layout(key, lambda body: key in body, lambda body, asked: Reading(asked(messages(key, body[key])), key))


def _is_preference(body: Body) -> bool:
    """Whether the prompt stands in `chosen`; with a `prompt` beside it, `chosen` may be the answer alone."""
    if "chosen" not in body:
        return False
    return holds_prompt(body["chosen"]) or not any(layout.fits(body) for layout in LAYOUTS if layout.name != "chosen")


def _read_preference(body: Body, asked: Asked) -> Reading:
    sides = [asked(_side(key, body[key])) for key in ("chosen", "rejected") if key in body]
    if any(side != sides[0] for side in sides):
        raise BadLine("ambiguous", "chosen and rejected have different prompts; write the right one into prompt alone")
    return Reading(sides[0], "chosen")


def _side(key: str, value: object) -> Sequence[Message]:
    if isinstance(value, str) and is_transcript(value):
        return transcript(value)
    if isinstance(value, list) and holds_prompt(value):
        return messages(key, value)
    raise BadLine(
        "invalid_type",
        f"{key} holds no prompt: it must be a transcript of Human: and Assistant: turns, or a list of messages "
        "that begins with the user's; otherwise name the prompt in prompt",
    )


def _read_turns(body: Body, asked: Asked) -> Reading:
    """Return the first of the user's turns (MT-bench); objects with a role are a dialog."""
    turns = body["turns"]
    if not (isinstance(turns, list) and turns):
        raise BadLine("invalid_type", "turns must be a list of the user's turns, at least one")
    if isinstance(turns[0], Mapping) and ("role" in turns[0] or "from" in turns[0]):
        return Reading(asked(messages("turns", turns)), "turns")
    first = turns[0].get("content") if isinstance(turns[0], Mapping) else turns[0]
    if not isinstance(first, str):
        raise BadLine("invalid_type", "turns[0] must be a text")
    return Reading((Message("user", first),), "turns", FIRST_TURN if len(turns) > 1 else None)


def _is_instruction(body: Body) -> bool:
    """Whether `instruction` is the prompt (alpaca, dolly); beside another prompt it is for ghost attention."""
    if "instruction" not in body:
        return False
    if "input" in body or "output" in body:
        return True
    return not (_has_any(body, "prompt", *DIALOGS, "transcript", "turns", BATCH) or holds_prompt(body.get("chosen")))


def _has_any(body: Body, *keys: str) -> bool:
    return any(key in body for key in keys)


def _read_instruction(body: Body, _: Asked) -> Reading:
    """Return the instruction, and behind a blank line its `input` (alpaca) or `context` (dolly)."""
    instruction, *inputs = (text_of(body, key) for key in ("instruction", "input", "context"))
    given = [text for text in inputs if text]
    if len(given) > 1:
        raise BadLine("ambiguous", "the row has input and context beside instruction; keep one of them")
    return Reading((Message("user", "\n\n".join([instruction or "", *given])),), "instruction")


def _is_thread(body: Body) -> bool:
    return "text" in body and "role" in body and not _has_any(body, *KEYS[: KEYS.index("role")])


def _read_thread(body: Body, _: Asked) -> Reading | Reply:
    """Return the message of an oasst row, if it begins a thread."""
    if "parent_id" in body:
        return Reply()
    return Reading((message("the row", body),), "text", ROOTS if body.get("replies") else None)


def _read_transcript(body: Body, asked: Asked) -> Reading:
    if not is_transcript(body["transcript"]):
        raise BadLine("invalid_type", "transcript must be a text of Human: and Assistant: turns")
    return Reading(asked(transcript(body["transcript"])), "transcript")


LAYOUTS = (
    Layout("prompt", lambda body: "prompt" in body, _read_prompt),
    *map(_dialog, DIALOGS),
    Layout("chosen", _is_preference, _read_preference),
    Layout("transcript", lambda body: "transcript" in body, _read_transcript),
    Layout("turns", lambda body: "turns" in body, _read_turns),
    Layout("instruction", _is_instruction, _read_instruction),
    Layout("text with role", _is_thread, _read_thread),
)
NAMES = (*(layout.name for layout in LAYOUTS), BATCH)
KEYS = ("prompt", *DIALOGS, "chosen", "transcript", "turns", "instruction", "role", BATCH)
"""The keys of which a row has at least one."""
COMPANIONS = ("rejected", "input", "output", "context", "text", "parent_id", "replies")
"""Further keys that layouts look at."""
OPTIONS = ("id", "is_safety", "system", "category", "instruction")
"""The options of a row; `instruction` is one beside another prompt only."""
ENVELOPE = ("method", "url", "body")
"""The other keys of a line of an OpenAI batch."""
COLUMNS = tuple(dict.fromkeys((*KEYS, *COMPANIONS, *OPTIONS, *ENVELOPE)))
"""Every key that is looked at; the others of a row are ignored."""
