"""Layouts of labelled answers."""

from __future__ import annotations

from typing import Any

import pytest

from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.rm.rows import Answer, labelled, prompt_key

HI = (Message("user", "Hi"),)
PKU = {
    "prompt": "Hi", "response_0": "a", "response_1": "b", "is_response_0_safe": True, "is_response_1_safe": False,
    "better_response_id": 1, "safer_response_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "response": "a", "is_safe": False},
        {"prompt": "Hi", "response": "a", "is_safe": False, "category": {"abuse": True}},  # BeaverTails
        {"prompt": "Hi", "answer": "a", "is_response_safe": False},
        {"prompt": "Hi", "response": "a", "safe": 0},
        {"prompt": "Hi", "response": "a", "safe": 0.0},  # a table with gaps
        {"prompt": "Hi", "response": "a", "harmful": True},
        {"prompt": "Hi", "response": "a", "harmful": True, "is_safe": False},
        {"messages": [{"role": "user", "content": "Hi"}], "response": "a", "is_safe": False},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}], "is_safe": False},
        {"prompt": [{"from": "human", "value": "Hi"}], "completion": "a", "unsafe": True},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": "a", "is_safe": False},
    ],
)
def test_each_layout_says_the_same(row: dict[str, Any]) -> None:
    (found,) = labelled(row)
    assert found.answer == Answer(HI, "a")
    assert found.is_unsafe
    assert found.is_harmless_prompt is None


def test_a_pku_row_holds_two_answers() -> None:
    found = labelled(PKU)
    assert [(one.answer.text, one.is_unsafe) for one in found] == [("a", False), ("b", True)]
    assert found[0].answer.prompt == found[1].answer.prompt


def test_a_prompt_may_be_marked_as_harmless() -> None:
    row = {"prompt": "Hi", "response": "a", "is_safe": True}
    assert labelled({**row, "prompt_harmful": False})[0].is_harmless_prompt is True
    assert labelled({**row, "prompt_safe": False})[0].is_harmless_prompt is False


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "its keys: none"),
        ({"prompt": "Hi", "response": "a"}, "the row has no answer with a label"),
        ({"prompt": "Hi", "response": "a", "is_safe": "yes"}, "is_safe must be true or false"),
        ({"prompt": "Hi", "response": "a", "is_safe": True, "harmful": True}, "contradict each other"),
        ({"prompt": "Hi", "response": 3, "is_safe": True}, "response must be a text"),
        ({"prompt": "Hi", "response": "a", "answer": "b", "is_safe": True}, "response and answer; keep one"),
        ({"prompt": "Hi", "messages": [], "response": "a", "is_safe": True}, "either prompt or messages"),
        ({"response": "a", "is_safe": True}, "either prompt or messages"),
        ({"prompt": " ", "response": "a", "is_safe": True}, "does not end with a message of the user"),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant: a", "response": "a", "safe": True}, "does not end with"),
        ({"messages": [{"role": "user", "content": "Hi"}], "safe": True}, "must end with the assistant's answer"),
        ({**PKU, "is_response_0_safe": None}, "is_response_0_safe must be"),
        ({"prompt": "Hi", "response": "a", "safe": True, "prompt_safe": True, "prompt_harmful": True}, "contradict"),
    ],
)
def test_a_bad_row_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        labelled(row)


def test_white_space_around_a_message_makes_no_other_prompt() -> None:
    assert prompt_key(HI) == prompt_key((Message("user", " Hi\n"),))
    assert prompt_key(HI) != prompt_key((Message("system", "Hi"),))
