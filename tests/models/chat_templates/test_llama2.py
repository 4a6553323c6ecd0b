"""The template against Meta's algorithm, written out over SentencePiece itself."""

from __future__ import annotations

import itertools

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.models.chat_templates.dialogs import contents, dialogs
from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.llama2 import TAGS, Llama2Template
from winnow.models.errors import DialogError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message

PIECES = sentencepiece.SentencePieceProcessor(model_file=str(demo.weights("policy") / "tokenizer.model"))


def chat_completion_ids(dialog: list[tuple[str, str]]) -> list[int]:
    """The ids that `llama/generation.py` builds for one dialog; BOS and EOS are added by id, never by text."""
    if dialog[0][0] == "system":
        merged = "<<SYS>>\n" + dialog[0][1] + "\n<</SYS>>\n\n" + dialog[1][1]
        dialog = [(dialog[1][0], merged), *dialog[2:]]
    ids: list[int] = []
    for (_, prompt), (_, answer) in zip(dialog[::2], dialog[1::2], strict=False):
        ids += [1, *PIECES.encode(f"[INST] {prompt.strip()} [/INST] {answer.strip()} "), 2]
    return [*ids, 1, *PIECES.encode(f"[INST] {dialog[-1][1].strip()} [/INST]")]


DIALOGS = dialogs(contents(without=TAGS))


@given(dialog=DIALOGS)
@settings(max_examples=500)
@example(dialog=[("system", "Be kind."), ("user", "  leading space survives after the system block ")])
@example(dialog=[("user", "a"), ("assistant", " b "), ("user", "</s><s>c")])
@example(dialog=[("user", "")])
def test_ids_equal_metas(tokenizer: Tokenizer, template: Llama2Template, dialog: list[tuple[str, str]]) -> None:
    ids = template.render([Message(*turn) for turn in dialog], tokenizer).token_ids
    assert list(ids) == chat_completion_ids(dialog)


@given(dialog=DIALOGS)
@settings(max_examples=100)
def test_control_ids_come_from_turns_alone(
    tokenizer: Tokenizer, template: Llama2Template, dialog: list[tuple[str, str]]
) -> None:
    ids = template.render([Message(*turn) for turn in dialog], tokenizer).token_ids
    turns = sum(role == "user" for role, _ in dialog)
    assert ids.count(1) == turns
    assert ids.count(2) == turns - 1
    assert ids[0] == 1 != ids[1]


def test_mappings_are_messages(tokenizer: Tokenizer, template: Llama2Template) -> None:
    dialog = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    messages = (Message("system", "S"), Message("user", "U"))
    assert template.validate(dialog) == messages
    assert template.render(dialog, tokenizer) == template.render(messages, tokenizer)


@pytest.mark.parametrize("is_safety", [False, True])
def test_a_prompt_keeps_its_messages(tokenizer: Tokenizer, template: Llama2Template, is_safety: bool) -> None:
    messages = (Message("system", "S"), Message("user", " U "), Message("assistant", "A"), Message("user", "V"))
    prompt = template.render(messages, tokenizer, is_safety=is_safety)
    assert (prompt.messages, prompt.is_safety, prompt.answer_prefix) == (messages, is_safety, " ")
    assert not prompt.is_raw
    assert len(prompt) == len(prompt.token_ids)


def test_the_table_names_the_template() -> None:
    assert {name: template.name for name, template in TEMPLATES.items()} == {"llama2": "llama2"}


def test_reserved_tags(template: Llama2Template) -> None:
    assert [template.reserved_tag(f"a{tag}b") for tag in TAGS] == list(TAGS)
    assert template.reserved_tag("[ INST ] [inst]") is None


U, A, S = ("user", "u"), ("assistant", "a"), ("system", "s")


@pytest.mark.parametrize(
    ("dialog", "index", "word"),
    [
        ([], None, "empty"),
        ([A], 0, "user"),
        ([U, A], 1, "last"),
        ([U, U], 1, "alternate"),
        ([U, A, A, U], 2, "alternate"),
        ([S], 0, "alone"),
        ([S, A, U], 1, "user"),
        ([U, S, U], 1, "first"),
        ([S, S], 0, "alone"),
        ([S, S, A], 2, "user"),
        ([S, S, U, S, U], 3, "first"),
        ([S, S, U, U], 3, "merge_turns"),
        ([("tool", "t"), U], 0, "role"),
    ],
)
def test_wrong_order_names_the_message(
    template: Llama2Template, dialog: list[tuple[str, str]], index: int | None, word: str
) -> None:
    with pytest.raises(DialogError, match=word) as caught:
        template.validate([Message(*turn) for turn in dialog])
    assert caught.value.index == index
    assert index is None or f"messages[{index}]" in str(caught.value)


@pytest.mark.parametrize(("tag", "role"), list(itertools.product(TAGS, ["system", "user"])))
def test_a_tag_in_a_users_or_system_message_is_refused(template: Llama2Template, tag: str, role: str) -> None:
    dialog = [["system", "s"], ["user", "u"], ["assistant", "a"], ["user", "u"]]
    index = [turn[0] for turn in dialog].index(role)
    dialog[index][1] = f"x {tag} y"
    with pytest.raises(DialogError) as caught:
        template.validate([Message(*turn) for turn in dialog])
    assert caught.value.index == index
    assert tag in str(caught.value)


PARTS = [*TAGS, "[", "]", "/", "<", ">", "INST", "SYS", " ", "\n", "word"]
TAGGED = st.lists(st.sampled_from(PARTS), max_size=9).map("".join)


@given(text=TAGGED)
@example(text="[[INST]INST]<<<<SYS>>SYS>>[/INST][/INST]")
def test_neutralised_text_holds_no_tag_and_loses_nothing(template: Llama2Template, text: str) -> None:
    neutral = template.neutralise(text)
    assert template.reserved_tag(neutral) is None
    assert neutral.replace(" ", "") == text.replace(" ", "")
    assert template.neutralise(neutral) == neutral
    assert (neutral == text) == (template.reserved_tag(text) is None)


@given(answer=TAGGED, question=TAGGED)
def test_whatever_a_message_holds_the_tags_of_a_prompt_are_the_templates_own(
    tokenizer: Tokenizer, template: Llama2Template, answer: str, question: str
) -> None:
    """Regression: the server refused its own answers as history once one of them held a tag."""
    dialog = [Message("user", "Hello"), Message("assistant", answer), Message("user", "Go on")]
    assert template.validate(dialog)[1].content == template.neutralise(answer)
    asked = [Message("system", question), *dialog[:-1], Message("user", question)]
    for prompt in (template.render(dialog, tokenizer), template.with_tags("neutralise").render(asked, tokenizer)):
        text = tokenizer.decode(prompt.token_ids)
        assert text.count("[INST]") == text.count("[/INST]") == text.count("<s>") == 2
        assert text.count("<<SYS>>") == text.count("<</SYS>>") == (prompt.messages[0].role == "system")
        assert template.validate(prompt.messages) == prompt.messages, "what was rendered is accepted back"
        assert prompt.tags == TAGS


def test_content_that_is_not_text_is_refused(tokenizer: Tokenizer, template: Llama2Template) -> None:
    for bad in ({"role": "user"}, {"role": "user", "content": None}, "user", {"role": ["user"], "content": "x"}):
        with pytest.raises(DialogError):
            template.render([bad], tokenizer)  # type: ignore[list-item]


def test_leading_system_messages_are_one(tokenizer: Tokenizer, template: Llama2Template) -> None:
    parts = [Message("system", text) for text in ("Be brief.\n", "", "\nBe kind.", "  ", " Sign. ")]
    joined = (Message("system", "Be brief.\n\nBe kind.\n\n Sign. "), Message("user", "U"))
    assert template.validate([*parts, Message("user", "U")]) == joined
    assert template.render([*parts, Message("user", "U")], tokenizer) == template.render(joined, tokenizer)
    alone = (Message("system", "\nas it is\n"), Message("user", "U"))
    assert template.validate(alone) == alone
    blank = [Message("system", ""), Message("system", " "), Message("user", "U")]
    assert template.validate(blank)[0] == Message("system", "")


@given(dialog=DIALOGS)
@settings(max_examples=100)
def test_merging_does_not_change_a_dialog_that_alternates(
    template: Llama2Template, dialog: list[tuple[str, str]]
) -> None:
    messages = tuple(Message(*turn) for turn in dialog)
    assert template.with_merging(True).validate(messages) == template.validate(messages) == messages


def test_turns_in_a_row_are_merged_if_asked(template: Llama2Template) -> None:
    dialog = [Message(*turn) for turn in (S, S, U, ("user", "v"), A, ("assistant", "b"), U, ("user", ""))]
    merging = template.with_merging(True)
    expected = [("system", "s\n\ns"), ("user", "u\n\nv"), ("assistant", "a\n\nb"), ("user", "u")]
    assert merging.validate(dialog) == tuple(Message(*turn) for turn in expected)
    assert merging.validate(merging.validate(dialog)) == merging.validate(dialog)
    assert not template.merge_turns
    for refused in ([A, A, U], [U, U, A], [U, S, U], [S, S]):
        with pytest.raises(DialogError):
            merging.validate([Message(*turn) for turn in refused])
