from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from winnow.clients import schema
from winnow.clients.schema import ChatCompletionChunk, ChatRequest, ChunkChoice, Delta, Scored
from winnow.models import types

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", [1]])
def test_numbers_are_numbers(value: Any) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({**BODY, "temperature": value})


def test_candidates_by_either_name() -> None:
    assert ChatRequest.model_validate({**BODY, "best_of": 3}).candidates == 3
    assert ChatRequest.model_validate({**BODY, "best_of_n": {"candidates": 3}, "best_of": 3}).candidates == 3
    assert ChatRequest.model_validate(BODY).candidates is None


def test_null_and_absent_fields() -> None:
    """OpenAI's schema requires `refusal`, `logprobs` and `finish_reason` present and null, and `usage` absent."""
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


def test_the_names_equal_those_of_the_models() -> None:
    """The clients may not import the models, so these names exist twice; they must not drift apart."""
    assert set(get_args(schema.BranchName)) == set(types.Branch)
    assert get_args(schema.CombinerName) == get_args(types.CombinerName)
    assert get_args(schema.Reduction) == get_args(types.Reduction)
    assert get_args(schema.Truncation) == get_args(types.Truncation)
    assert get_args(schema.AbortReason) == get_args(types.AbortReason)
    refusal = {"content_filter"}  # the operator's refusal is not the end of a candidate
    assert set(get_args(schema.FinishReason)) == {*get_args(types.FinishReason)} | refusal
