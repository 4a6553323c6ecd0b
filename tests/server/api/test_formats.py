"""Answers in OpenAI's formats: log-probabilities that spell the text, and the pieces of a stream."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from winnow.models.tokenizer import Tokenizer
from winnow.models.types import TokenLogprob
from winnow.server.api.formats import ChatFormat, TextFormat
from winnow.server.api.returned import PIECE, Returned, chat_logprobs, pieces, text_logprobs


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


@given(text=words, raw=st.booleans())
def test_the_pieces_of_a_stream_are_the_text(tokenizer: Tokenizer, text: str, raw: bool) -> None:
    answer = Returned(text, "stop", None, "" if raw else " ")
    chat = [chunk.choices[0].delta.content or "" for chunk in ChatFormat("m", tokenizer).pieces(0, answer)]
    plain = [chunk.choices[0].text for chunk in TextFormat("m", tokenizer, "").pieces(0, answer)]
    assert "".join(chat) == "".join(plain) == text
    assert chat == plain
    assert len(chat) >= 2
    borders, spelt = {0}, b""
    for token_id in tokenizer.encode_continuation(answer.prefix + text):
        spelt += tokenizer.token_bytes(token_id)
        borders.add(len(spelt.decode(errors="ignore").removeprefix(answer.prefix)))
    assert set(accumulate(map(len, chat))) <= borders, "a piece ends inside a token"


@given(ids=st.lists(st.integers(0, 2047), max_size=60), cut=st.integers(0, 200), raw=st.booleans())
@example(ids=[300] * 30, cut=200, raw=False)
def test_each_piece_has_the_log_probabilities_of_its_tokens(
    tokenizer: Tokenizer, ids: list[int], cut: int, raw: bool
) -> None:
    whole = returned(tokenizer, ids, raw=raw, top=2)
    answer = whole._replace(text=whole.text[:cut])
    chat = [chunk.choices[0] for chunk in ChatFormat("m", tokenizer).pieces(1, answer)]
    plain = [chunk.choices[0] for chunk in TextFormat("m", tokenizer, "echo").pieces(1, answer)]
    assert "".join(choice.delta.content or "" for choice in chat) == answer.text
    assert "".join(choice.text for choice in plain) == "echo" + answer.text
    assert [choice.delta.role for choice in chat] == ["assistant", *[None] * (len(chat) - 1)]
    content = [token for choice in chat if choice.logprobs for token in choice.logprobs.content]
    assert content == getattr(chat_logprobs(answer, tokenizer), "content", None)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [item for choice in plain for item in getattr(choice.logprobs, name)]
        assert joined == getattr(text_logprobs(answer, tokenizer), name)
    for choice in chat[:-1]:
        assert choice.logprobs
        spelt = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content).decode(errors="ignore")
        assert spelt.startswith(choice.delta.content or "")


def test_a_long_answer_has_many_pieces(tokenizer: Tokenizer) -> None:
    text = "The capital of France is Paris. " * 20
    sizes = [len(piece.text) for piece in pieces(Returned(text, "stop", None, " "), tokenizer)]
    assert len(sizes) > 15
    assert max(sizes) < 2 * PIECE
