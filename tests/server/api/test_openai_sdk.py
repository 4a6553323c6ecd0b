"""The official `openai` SDK as a client of the server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.live import LiveServer

pytestmark = pytest.mark.engine

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as running:
        yield running


def test_create(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="winnow-demo", messages=QUESTION, n=2, seed=3, extra_body={"best_of_n": {"candidates": 4}}
    )
    assert len(answer.choices) == 2
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model_extra
    assert answer.model_extra["best_of_n"]["candidates"] == 4


def test_answers_can_be_sent_back_unchanged(client: openai.OpenAI) -> None:
    """SDK users append the returned message, with its null fields, and continue the dialog."""
    first = client.chat.completions.create(model="winnow-demo", messages=QUESTION)
    message = first.choices[0].message
    for turn in (message, message.model_dump(), {**message.model_dump(), "tool_calls": None, "audio": None}):
        dialog = [*QUESTION, turn, {"role": "user", "content": "And of Spain?"}]
        assert client.chat.completions.create(model="winnow-demo", messages=dialog).choices  # type: ignore[arg-type]


def test_a_plain_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="winnow-demo", messages=QUESTION, seed=3)
    stream = client.chat.completions.create(model="winnow-demo", messages=QUESTION, seed=3, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="winnow-demo", messages=QUESTION, seed=3, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    whole = client.chat.completions.create(model="winnow-demo", messages=QUESTION, seed=3)
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason
    assert final.usage == whole.usage


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["winnow-demo"]
    assert client.models.retrieve("winnow-demo").owned_by == "winnow"


def test_errors_become_the_sdks_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="winnow-demo", messages=QUESTION, response_format={"type": "json_object"})
    assert (refused.value.code, refused.value.param) == ("unsupported", "response_format")
