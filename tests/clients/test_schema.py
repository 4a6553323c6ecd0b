from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from winnow.clients.schema import ChatCompletionChunk, ChatRequest, ChunkChoice, Delta, Scored
from winnow.models.types import Branch, CombinerName, FinishReason
from winnow.server.api.responses import pieces

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_fields_that_ask_for_nothing_are_passed_over_at_their_neutral_value() -> None:
    for name, values in ChatRequest.neutral.items():
        for value in values:
            assert ChatRequest.model_validate({**BODY, name: value}) == ChatRequest.model_validate(BODY)
        with pytest.raises(ValidationError, match="not supported"):
            ChatRequest.model_validate({**BODY, name: {"something": "else"}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", [1]])
def test_numbers_are_numbers(value: Any) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({**BODY, "temperature": value})


def test_candidates_by_either_name() -> None:
    assert ChatRequest.model_validate({**BODY, "best_of": 3}).candidates == 3
    assert ChatRequest.model_validate({**BODY, "best_of_n": {"candidates": 3}, "best_of": 3}).candidates == 3
    assert ChatRequest.model_validate(BODY).candidates is None


def test_null_and_absent_fields() -> None:
    """OpenAI's schema wants `refusal`, `logprobs` and `finish_reason` present and null, and `usage` absent."""
    chunk = ChatCompletionChunk(id="x", created=1, model="m", choices=[ChunkChoice(index=0, delta=Delta(content="a"))])
    body = json.loads(chunk.model_dump_json())
    assert set(body) == {"id", "object", "created", "model", "choices"}
    assert body["choices"] == [{"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}]
    scored = Scored(
        index=0,
        safety=0.5,
        helpfulness=None,
        combined=0.5,
        branch="safety_prompt",
        rank=0,
        finish_reason="stop",
        tokens=1,
    )
    assert "text" not in json.loads(scored.model_dump_json())
    assert json.loads(scored.model_dump_json())["helpfulness"] is None


def test_the_wires_names_are_the_domains() -> None:
    """The client may not import the models; the names both sides use must not drift apart."""
    from winnow.clients import schema as wire

    assert set(wire.BranchName.__args__) == set(Branch)  # type: ignore[attr-defined]
    assert wire.CombinerName.__args__ == CombinerName.__args__  # type: ignore[attr-defined]
    refused = {"content_filter"}  # the operator's refusal is no candidate's end
    assert set(wire.FinishReason.__args__) == {*FinishReason.__args__} | refused  # type: ignore[attr-defined]


@given(st.text())
def test_pieces_are_two_or_more_and_lose_nothing(text: str) -> None:
    parts = pieces(text)
    assert len(parts) >= 2
    assert "".join(parts) == text
