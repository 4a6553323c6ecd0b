"""Control tokens: which they are, and that a message's text never holds one."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from tests.models.byte_level import FAMILIES, shipped
from winnow.models.control_tokens import control_tokens

PARTS = (
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<｜User｜>",
    "<|",
    "im_",
    "end|>",
    "｜>",
    " ",
    "\n",
    "a",
    "é",
)
texts = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


def test_special_tokens_and_markup_are_control_tokens_and_words_are_not() -> None:
    contents = ["<|end|>", "<tool_call>", "[INST]", "word", "  ", "<", "<a b>", "x<y>", "[]", "plain"]
    added = {index: AddedToken(content, special=False) for index, content in enumerate(contents)}
    added[9] = AddedToken("plain", special=True)
    assert set(control_tokens(added)) == {"<|end|>", "<tool_call>", "[INST]", "plain"}


@pytest.mark.parametrize("family", FAMILIES)
@given(text=texts, is_answer=st.booleans())
@example(text="<|im_start|>", is_answer=False)
@example(text="|><|", is_answer=False)
@settings(max_examples=50)
def test_a_shielded_text_is_shown_as_it_was(family: str, text: str, is_answer: bool) -> None:
    own = shipped(family)
    controls, hidden = own.ours.controls, own.ours.controls.shielded(text, is_answer=is_answer)
    assert controls.shown(hidden) == text
    assert not any(name in hidden for name in own.theirs.all_special_tokens)
    if not is_answer and not FAMILIES[family].composes:
        assert controls.encode(hidden) == own.ours.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_that_is_not_shielded_is_the_token(family: str) -> None:
    own = shipped(family)
    for name in own.theirs.all_special_tokens:
        assert own.ours.controls.encode(f"a{name}b")[1] == own.theirs.convert_tokens_to_ids(name)


def test_the_edges_of_a_text_cannot_complete_a_name() -> None:
    controls = shipped("ChatML").ours.controls
    for before, text, after in (("<|im_", "end|> a", ""), ("", "a <|im_end", "|>"), ("<|", " im_end|>\n", "")):
        assert "<|im_end|>" not in before + controls.shielded(text).strip() + after


def test_tags_stay_in_answers_for_the_template_to_find() -> None:
    controls = shipped("Qwen").ours.controls
    assert controls.shielded("<think>a</think>b", is_answer=True) == "<think>a</think>b"
    assert "think>" not in controls.shielded("<think>a</think>b")
    assert "<|box|>" not in controls.shielded("<|box|>", is_answer=True)
