"""Layouts of rows: the same dialog from each of them, and an error where a row says two things or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.distill import layouts
from winnow.server.distill.layouts import FIRST_TURN, ROOTS, Reading, Reply
from winnow.server.distill.parser import Task, parse
from winnow.server.distill.reader import open_source
from winnow.server.distill.records import Problem

ROOT = Path(__file__).parents[3]
ASK, REPLY, MORE, LAST = ("user", "Hello"), ("assistant", "Hi"), ("user", "More?"), ("assistant", "No.")
TREE = {"message_id": "m1", "text": "Hello", "role": "prompter"}


def said(*turns: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, Any]]:
    return [{role: name, content: text} for name, text in turns]


def transcript(*turns: tuple[str, str]) -> str:
    return "".join(f"\n\n{'Human' if role == 'user' else 'Assistant'}: {text}" for role, text in turns)


ONE: list[dict[str, Any]] = [
    {"prompt": "Hello"},
    {"prompt": said(ASK)},
    {"prompt": transcript(ASK, ("assistant", ""))},
    {"prompt": "Hello", "completion": "Hi", "label": True},
    {"messages": said(ASK, REPLY)},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]},
    {"messages": said(("human", "Hello"), ("gpt", "Hi"), role="from", content="value")},
    *(
        {"conversations": said(("human", "Hello"), (name, "Hi"), role="from", content="value")}
        for name in ("gpt", "chatgpt", "bing", "bard", "assistant", "GPT")
    ),
    {"conversations": said(ASK, REPLY)},
    {"conversation_id": "c", "conversation": said(ASK, REPLY), "model": "m"},
    {"instruction": "Hello", "input": "", "output": "Hi"},
    {"instruction": "Hello", "output": "Hi", "text": "Below is an instruction …"},
    {"instruction": "Hello", "context": " ", "response": "Hi"},
    {"instruction": "Hello", "chosen": "Hi", "rejected": "Ho"},
    {"chosen": transcript(ASK, REPLY), "rejected": transcript(ASK, LAST)},
    {"chosen": "Human: Hello\n\nAssistant: Hi"},
    {"chosen": transcript(ASK, REPLY).replace("\n", "\r\n"), "rejected": transcript(ASK, LAST).replace("\n", "\r\n")},
    {"transcript": transcript(ASK, REPLY), "rating": 1},
    {"chosen": said(ASK, REPLY), "rejected": said(ASK, LAST)},
    {"prompt": said(ASK), "chosen": said(REPLY), "rejected": said(LAST)},
    {"prompt": "Hello", "chosen": " Hi", "rejected": " Ho"},
    {"prompt": "Hello", "chosen": 0},
    {"prompt": " Hello\n", "prompt_id": "p", "messages": said(ASK, REPLY)},
    {"prompt": "Hello", "messages": said(ASK, REPLY), "chosen": said(ASK, REPLY), "rejected": said(ASK, LAST)},
    {"question_id": 81, "category": "writing", "turns": ["Hello", "More?"]},
    {"turns": [{"content": "Hello"}]},
    {"turns": said(ASK, REPLY)},
    TREE,
    {**TREE, "replies": [{"text": "Hi", "role": "assistant", "replies": []}]},
    {"message_tree_id": "m1", "prompt": {**TREE, "replies": []}},
]


@pytest.mark.parametrize("row", ONE)
def test_one_question_in_every_layout(row: dict[str, Any]) -> None:
    assert read(row).messages == (Message("user", "Hello"),)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": said(ASK, REPLY, MORE)},
        {"messages": said(ASK, REPLY, MORE, LAST)},
        {"prompt": "Hello", "messages": said(ASK, REPLY, MORE, LAST)},
        {"prompt": "Hello", "chosen": said(ASK, REPLY, MORE, LAST), "rejected": said(ASK, REPLY, MORE, REPLY)},
        {"chosen": transcript(ASK, REPLY, MORE, LAST), "rejected": transcript(ASK, REPLY, MORE, REPLY)},
        {"prompt": transcript(ASK, REPLY, MORE), "chosen": "Yes.", "rejected": "No."},
        {"messages": said(("prompter", "Hello"), REPLY, ("prompter", "More?"), content="text")},
    ],
)
def test_a_dialog_in_every_layout(row: dict[str, Any]) -> None:
    assert read(row).messages == tuple(Message(*turn) for turn in (ASK, REPLY, MORE))


def read(row: dict[str, Any]) -> Reading:
    found = layouts.read(row)
    assert isinstance(found, Reading)
    return found


def test_an_input_stands_behind_its_instruction() -> None:
    for name in ("input", "context"):
        assert read({"instruction": "Sum up.", name: "A text."}).messages == (Message("user", "Sum up.\n\nA text."),)


def test_a_system_message_may_come_before_the_prompt() -> None:
    system = ("system", "Be brief.")
    found = read({"prompt": "Hello", "messages": said(system, ASK, REPLY)})
    assert found.messages == (Message(*system), Message(*ASK))


def test_what_is_left_out_is_said() -> None:
    assert read({"turns": ["Hello", "More?"]}).remark == FIRST_TURN
    assert read({"turns": ["Hello"]}).remark is None
    assert layouts.read({**TREE, "parent_id": "m0"}) == Reply()
    assert read({"prompt": {**TREE, "replies": [{"text": "Hi", "role": "assistant"}]}}).remark == ROOTS


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ({"prompt": "a", "messages": said(ASK)}, "ambiguous", "prompt and messages"),
        ({"prompt": said(MORE), "messages": said(ASK, REPLY)}, "ambiguous", "prompt and messages"),
        ({"messages": said(ASK), "conversations": said(MORE)}, "ambiguous", "messages and conversations"),
        ({"prompt": "a", "instruction": "b", "input": "c"}, "ambiguous", "prompt and instruction"),
        ({"instruction": "a", "input": "b", "context": "c"}, "ambiguous", "input and context"),
        ({"chosen": said(ASK, REPLY), "rejected": said(MORE, LAST)}, "ambiguous", "different prompts"),
        ({"chosen": transcript(ASK, REPLY), "rejected": transcript(MORE, LAST)}, "ambiguous", "different prompts"),
        ({"prompt": "a", "chosen": transcript(ASK, REPLY)}, "ambiguous", "prompt and chosen"),
        ({"chosen": "Hi", "rejected": "Ho"}, "invalid_type", "chosen holds no prompt"),
        ({"chosen": said(REPLY), "rejected": said(LAST)}, "invalid_type", "chosen holds no prompt"),
        ({"transcript": "Hello"}, "invalid_type", "transcript"),
        ({"turns": []}, "invalid_type", "turns"),
        ({"turns": [1]}, "invalid_type", "turns[0]"),
        ({"instruction": 1}, "invalid_type", "instruction"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported", "of type image_url"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "unsupported", "without a text"),
        ({"text": "a", "label": 1}, "unknown_shape", "text, label"),
        ({"data": [{"prompt": "a"}]}, "unknown_shape", "the list under data"),
        ({"question": "a"}, "unknown_shape", ", ".join(layouts.NAMES)),
    ],
)
def test_a_row_that_says_two_things_or_none(row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(BadLine, match=words.replace("[", r"\[")) as bad:
        layouts.read(row)
    assert bad.value.code == code


def test_the_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
    for key in layouts.COLUMNS:
        assert f'"{key}"' in text or f"`{key}`" in text, key


def test_hh_rlhf_is_read_as_it_is(tmp_path: Path) -> None:
    """Transcripts with blank lines, colons and empty answers; damaged rows are told so."""
    long = ("user", "I have a list:\n\n1. Human: me\n\n2. you\n\nSo who?")
    sound: list[list[tuple[str, str]]] = [
        [ASK],
        [long, ("assistant", "Well: you.\n\nOr me"), MORE],
        [ASK, ("assistant", ""), MORE, REPLY, ("user", "Bye")],
    ]
    rows = [
        {"chosen": transcript(*turns, REPLY), "rejected": transcript(*turns, ("assistant", end))}
        for turns, end in zip(sound, ("No.", "", "No.\n\n- never\n\n- ever"), strict=True)
    ]
    rows += [
        {"chosen": transcript(ASK, REPLY, MORE, REPLY), "rejected": transcript(ASK, LAST, MORE, REPLY)},
        {"chosen": transcript(ASK, MORE, REPLY), "rejected": transcript(ASK, MORE, LAST)},
        {"chosen": transcript(ASK, REPLY, LAST), "rejected": transcript(ASK, REPLY, REPLY)},
    ]
    path = tmp_path / "harmless.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = list(parse(open_source(str(path), tmp_path), TEMPLATES["llama2"]))
    dialogs = [[(turn.role, turn.content) for turn in item.messages] for item in found if isinstance(item, Task)]
    assert dialogs == sound
    codes = [item.code for item in found if isinstance(item, Problem)]
    assert codes == ["ambiguous", "invalid_messages", "invalid_messages"]


def test_the_own_answer_is_all_of_the_last_turn_where_turns_are_merged(tmp_path: Path) -> None:
    """In every layout that ends with an answer, and in both sides of a preference."""
    twice = (REPLY, LAST)
    rows = [
        {"messages": said(ASK, *twice)},
        {"turns": said(ASK, *twice)},
        {"prompt": transcript(ASK, *twice)},
        {"transcript": transcript(ASK, *twice)},
        {"chosen": transcript(ASK, *twice), "rejected": transcript(ASK, LAST)},
        {"chosen": said(ASK, LAST), "rejected": said(ASK, *twice)},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    source = open_source(str(path), tmp_path)
    assert all(isinstance(item, Problem) for item in parse(source, TEMPLATES["llama2"]))
    for item in parse(source, TEMPLATES["llama2"].with_merging(True)):
        assert isinstance(item, Task)
        assert item.messages == (Message(*ASK),)
