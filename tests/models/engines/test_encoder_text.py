"""The ids that an encoder reads: the tokenizer's own ids for the two sentences, and text that stays text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.models.engines import tiny_encoders
from winnow.models.cards import Card
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Message, Prompt

TOKENIZERS = {"word pieces": tiny_encoders.word_piece, "bytes": tiny_encoders.byte_level,
              "unigrams": tiny_encoders.unigram}  # fmt: skip
PARTS = ("[SEP]", "[CLS]", "[PAD]", "[MASK]", "</s>", "<s>", "<pad>", "<mask>", "[", "]", "SEP", " ", "\n", "a", "é")
hostile = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
harmless = st.text(st.sampled_from("abc .,?é\n"), min_size=1, max_size=30)


@lru_cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return TOKENIZERS[kind]()


def reader(kind: str, **card: Any) -> EncoderInput:
    return EncoderInput(Card(name="mine", adapter="encoder", **card), tokenizer(kind))


def prompt(*contents: str) -> Prompt:
    """A dialog of these turns, the user's first."""
    return Prompt((), tuple(Message(("user", "assistant")[place % 2], text) for place, text in enumerate(contents)))


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(question=harmless, answer=harmless)
@settings(max_examples=40)
def test_a_pair_is_the_tokenizers_own(kind: str, question: str, answer: str) -> None:
    ours = reader(kind)
    theirs = tokenizer(kind)(question, answer)
    ids = ours.token_ids(prompt(question), answer)
    assert ids == theirs["input_ids"]
    assert not ours.has_types or ours.token_types(ids) == theirs["token_type_ids"]
    assert ours.has_types == (kind != "bytes")


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(answer=harmless)
@settings(max_examples=20)
def test_an_answer_alone_is_the_tokenizers_own(kind: str, answer: str) -> None:
    ours = reader(kind, reads="answer")
    ids = ours.token_ids(prompt("Not read."), answer)
    assert ids == tokenizer(kind)(answer)["input_ids"]
    assert ours.token_types(ids) == [0] * len(ids)
    assert ours.reread(prompt("Not read.")) == 0


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(question=hostile, answer=hostile)
@settings(max_examples=60)
def test_no_text_becomes_a_special_token(kind: str, question: str, answer: str) -> None:
    """DeBERTa's vocabulary has `[SEP]` among its pieces, so that it would be one without the tokenizer's added ones."""
    own = tokenizer(kind)
    special = {own.cls_token_id, own.sep_token_id, own.pad_token_id, own.mask_token_id}
    ids = reader(kind).token_ids(prompt(question), answer)
    expected = reader(kind).token_ids(prompt("a"), "a")
    assert [token for token in ids if token in special] == [token for token in expected if token in special]
    assert len(reader(kind).token_types(ids)) == len(ids)


def test_all_turns_are_the_first_sentence() -> None:
    ours = reader("word pieces")
    ids = ours.token_ids(prompt("Hello", "Hi", "Yes?"), "No")
    assert ids == tokenizer("word pieces")("Hello\n\nHi\n\nYes?", "No")["input_ids"]
    raw = Prompt((), raw_text="Hello Hi")
    assert ours.token_ids(raw, "No") == tokenizer("word pieces")("Hello Hi", "No")["input_ids"]
    assert ours.reread(prompt("Hello", "Hi")) == 7


@pytest.mark.parametrize(
    ("system", "question"), [("keep", "Be kind.\n\nHello"), ("merge", "Be kind.\n\nHello"), ("drop", "Hello")]
)
def test_a_system_message_is_read_as_the_card_says(system: Any, question: str) -> None:
    messages = (Message("system", "Be kind."), Message("user", "Hello"))
    ids = reader("word pieces", system=system).token_ids(Prompt((), messages), "Hi")
    assert ids == tokenizer("word pieces")(question, "Hi")["input_ids"]


def test_a_template_makes_the_first_sentence() -> None:
    ours = reader("bytes", template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    ids = ours.token_ids(prompt("</s>", "b"), "c")
    assert ids[:1] + ids[-1:] == [0, 2]
    text = tokenizer("bytes").decode(ids[1 : ids.index(2)])
    assert text == "user: </s>\nassistant: b\n"
    refusing = reader("bytes", template="{{ raise_exception('No.') }}")
    with pytest.raises(CandidateFailed, match="reward model mine does not render this: No"):
        refusing.token_ids(prompt("a"), "b")


@pytest.mark.parametrize(
    ("card", "reads_history"),
    [
        ({}, True),
        ({"reads": "answer"}, False),
        ({"template": "{{ messages[-1].content }}"}, False),
        ({"template": "{% for m in messages %}{{ m.content }}{% endfor %}"}, True),
        ({"template": "{{ raise_exception('No.') }}"}, True),
    ],
)
def test_whether_earlier_turns_are_read_is_known(card: dict[str, Any], reads_history: bool) -> None:
    assert reader("bytes", **card).reads_history == reads_history


def test_the_oldest_turns_go_and_never_the_answer() -> None:
    ours = reader("word pieces", overflow="drop_oldest_turns")
    dialog = prompt("hello " * 40, "Hi", "is " * 30, "No", "this?")
    ids = ours.shortened(dialog, "a b c", 30)
    assert ids == tokenizer("word pieces")("this?", "a b c")["input_ids"]
    assert ours.shortened(dialog, "a " * 40, 30) is None
    assert reader("word pieces").shortened(dialog, "a", 30) is None
    assert reader("word pieces", reads="answer").shortened(dialog, "a", 1) is None


def test_a_tokenizer_that_puts_nothing_between_sentences_is_refused() -> None:
    bare = tiny_encoders.byte_level()
    bare.backend_tokenizer.post_processor = None
    with pytest.raises(CheckpointError, match="no special token between two sentences"):
        EncoderInput(Card(name="mine", adapter="encoder"), bare)
