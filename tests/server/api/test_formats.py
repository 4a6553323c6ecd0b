"""Answers in OpenAI's formats: log-probabilities that spell the text, and the pieces of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.tokenizer import Tokenizer
from winnow.models.types import TokenLogprob
from winnow.server.api.formats import ChatFormat, Returned, TextFormat, chat_logprobs, text_logprobs


def returned(tokenizer: Tokenizer, ids: list[int], *, raw: bool, top: int = 0) -> Returned:
    """Return an answer of these ids; each token's alternatives are itself and the `top - 1` ids before it."""
    prefix = "" if raw else " "
    text = tokenizer.decode_continuation(ids).removeprefix(prefix)
    tokens = tuple(TokenLogprob(each, -0.1, ((each, -0.1), *((each - i, -i) for i in range(1, top)))) for each in ids)
    return Returned(text, "stop", tokens, prefix)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("text", ["Hi", " Hi", "  two spaces", "a 😀 b", "ünïcödé", "</s>", "\n- a\n- b"])
def test_the_bytes_spell_the_answer(tokenizer: Tokenizer, text: str, raw: bool) -> None:
    """Regression: a chat answer that began with a space lost its last token; offsets drifted after wide characters."""
    prefix = "" if raw else " "
    answer = returned(tokenizer, tokenizer.encode_continuation(prefix + text), raw=raw, top=2)
    assert answer.text == text
    chat, plain = chat_logprobs(answer, tokenizer), text_logprobs(answer, tokenizer)
    assert chat
    assert plain
    assert b"".join(bytes(token.bytes or ()) for token in chat.content).decode() == answer.text
    for token in chat.content:
        assert token.top_logprobs[0].token == token.token
    assert plain.text_offset == sorted(plain.text_offset)
    whole = [token for token in chat.content if token.token.encode() == bytes(token.bytes or ())]
    starts = {id(token): start for token, start in zip(chat.content, plain.text_offset, strict=True)}
    assert all(answer.text[starts[id(token)] :].startswith(token.token) for token in whole if token.bytes)


def test_of_alternatives_with_equal_text_the_likeliest_is_shown(tokenizer: Tokenizer) -> None:
    """The byte token of a line end and its piece, where the vocabulary has both, are one text."""
    piece, byte = tokenizer.encode_continuation("a")[0], tokenizer.encode_continuation("\x80")[-1]
    spelt_alike = next(id for id in range(256) if tokenizer.token_bytes(id) == tokenizer.token_bytes(piece))
    token = TokenLogprob(piece, -0.1, ((piece, -0.1), (spelt_alike, -5.0), (byte, -7.0)))
    plain = text_logprobs(Returned("a", "stop", (token,)), tokenizer)
    assert plain
    assert plain.top_logprobs == [{"a": -0.1, "<0x80>": -7.0}]


@given(ids=st.lists(st.integers(0, 2047), max_size=40), cut=st.integers(0, 60), raw=st.booleans())
def test_any_tokens_spell_their_answer_wherever_it_is_cut(
    tokenizer: Tokenizer, ids: list[int], cut: int, raw: bool
) -> None:
    """Random ids are full of bytes that make no character: they are in the logprobs, and not in the text."""
    whole = returned(tokenizer, ids, raw=raw)
    answer = whole._replace(text=whole.text[:cut])
    chat, plain = chat_logprobs(answer, tokenizer), text_logprobs(answer, tokenizer)
    assert chat
    assert plain
    spelt = b"".join(bytes(token.bytes or ()) for token in chat.content)
    assert spelt.decode(errors="ignore").startswith(answer.text)
    assert plain.text_offset == sorted(plain.text_offset)
    assert all(start < len(answer.text) for start in plain.text_offset)
    for start, token in zip(plain.text_offset, chat.content, strict=True):
        if token.token.encode() == bytes(token.bytes or ()):
            assert whole.text[start:].startswith(token.token)


@given(words)
def test_the_pieces_of_a_stream_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    answer = Returned(text, "stop")
    chat = [chunk.choices[0].delta.content or "" for chunk in ChatFormat("m", tokenizer).pieces([answer])]
    plain = [chunk.choices[0].text for chunk in TextFormat("m", tokenizer, "").pieces([answer])]
    assert "".join(chat) == "".join(plain) == text
    assert len(chat) >= 2
