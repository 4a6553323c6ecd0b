"""Log-probabilities as the wire has them, whatever the tokens are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.tokenizer import Tokenizer
from winnow.models.types import TokenLogprob
from winnow.server.api.responses import Returned, chat_logprobs, pieces, text_logprobs


def returned(tokenizer: Tokenizer, ids: list[int], *, raw: bool, top: int = 0) -> Returned:
    """An answer of these ids, each its own first alternative and the `top` ids around it behind."""
    anchor = template.encode("[/INST]")
    text = template.tokenizer.decode([*anchor, *ids], skip_special_tokens=True).removeprefix("[/INST]")
    tokens = tuple(TokenLogprob(each, -0.1, ((each, -0.1), *((each - i, -i) for i in range(1, top)))) for each in ids)
    return Returned(text if raw else text.removeprefix(" "), "stop", tokens, not raw)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("text", ["Hi", " Hi", "  two spaces", "a 😀 b", "ünïcödé", "</s>", "\n- a\n- b"])
def test_the_bytes_spell_the_answer(tokenizer: Tokenizer, text: str, raw: bool) -> None:
    """A chat answer that itself began with a space lost its last token; offsets drifted behind characters of many bytes."""
    answer = returned(template, template.encode_answer(text), raw=raw, top=2)
    chat, plain = chat_logprobs(answer, template), text_logprobs(answer, template)
    assert chat
    assert plain
    assert b"".join(bytes(token.bytes or ()) for token in chat.content).decode() == answer.text
    for token in chat.content:
        assert token.top_logprobs[0].token == token.token
    assert plain.text_offset == sorted(plain.text_offset)
    whole = [token for token in chat.content if b"\xef\xbf\xbd" not in token.token.encode()]
    starts = {id(token): start for token, start in zip(chat.content, plain.text_offset, strict=True)}
    assert all(answer.text[starts[id(token)] :].startswith(token.token) for token in whole if token.bytes)


def test_of_alternatives_that_look_alike_the_likeliest_is_shown(tokenizer: Tokenizer) -> None:
    byte_tokens = [template.tokenizer.convert_tokens_to_ids(name) for name in ("<0x80>", "<0x81>")]
    token = TokenLogprob(byte_tokens[0], -0.1, ((byte_tokens[0], -0.1), (byte_tokens[1], -5.0)))
    plain = text_logprobs(Returned("�", "stop", (token,)), template)
    assert plain
    assert plain.top_logprobs == [{"�": -0.1}]


@given(words)
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert len(pieces(text)) >= 2
