"""Fields of OpenAI's and vLLM's requests: every one is honoured, without effect, or refused where it asks for more."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as text_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import completion_create_params as chat_params
from pydantic import BaseModel, ValidationError

from winnow.clients.schema import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ErrorDetail,
    StreamOptions,
    TextPart,
    TextRequest,
    TokenizeRequest,
    WithoutEffect,
    compatibility,
)
from winnow.clients.validation_errors import describe_invalid
from winnow.server.pipeline.request import RequestOptions

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hi"}
BODIES: list[tuple[type[CompletionRequest], dict[str, Any]]] = [(ChatRequest, CHAT), (TextRequest, TEXT)]
GIVEN = {"messages", "model", "prompt"}


def refused(kind: type[BaseModel], body: dict[str, Any]) -> ErrorDetail:
    """Return the error that `body` gets."""
    with pytest.raises(ValidationError) as error:
        kind.model_validate_json(json.dumps(body))
    return describe_invalid(error.value.errors(include_url=False), body)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ChatRequest, chat_params.CompletionCreateParamsBase),
        (TextRequest, text_params.CompletionCreateParamsBase),
        (ChatMessage, ChatCompletionAssistantMessageParam),
        (TextPart, ChatCompletionContentPartTextParam),
        (StreamOptions, ChatCompletionStreamOptionsParam),
    ],
)
def test_every_field_of_openais_is_classified(ours: Any, theirs: type) -> None:
    assert typing.get_type_hints(theirs).keys() <= ours.model_fields.keys() | ours.neutral.keys()
    assert not ours.model_fields.keys() & ours.neutral.keys()


VLLM_DEFAULTS = """
import json
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest, TokenizeCompletionRequest
bodies = ChatCompletionRequest(messages=[]), CompletionRequest(prompt="x")
bodies += TokenizeChatRequest(messages=[]), TokenizeCompletionRequest(prompt="x")
print(json.dumps([{"defaults": json.loads(b.model_dump_json()), "fields": list(type(b).model_fields)} for b in bodies]))
"""


@pytest.mark.engine
def test_every_field_of_vllms_is_accepted_at_its_default_and_at_null() -> None:
    """Clients that write every field of vLLM's requests, at its default, are answered as those that write none."""
    program = [sys.executable, "-c", VLLM_DEFAULTS]  # a process of its own: vLLM imports torch, with warnings
    found = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    *completions, chat, text = json.loads(found)
    for theirs, body in ((chat, CHAT), (text, TEXT)):
        asked = TokenizeRequest.model_validate_json(json.dumps({**theirs["defaults"], **body}))
        assert not asked.return_token_strs
    for (kind, body), theirs in zip(BODIES, completions, strict=True):
        fields = set(theirs["fields"]) - GIVEN
        assert fields <= kind.model_fields.keys() | kind.neutral.keys()
        asked = kind.model_validate_json(json.dumps({**theirs["defaults"], **body}))
        assert RequestOptions.of(asked) == RequestOptions(max_tokens=asked.max_tokens, n=1)
        for name in fields:
            assert RequestOptions.of(kind.model_validate({**body, name: None})) == RequestOptions(), name


@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_fields_are_passed_over_at_neutral_values_and_refused_at_others(
    kind: type[CompletionRequest], body: dict[str, Any]
) -> None:
    for name, values in kind.neutral.items():
        for value in (None, *values):
            assert kind.model_validate({**body, name: value}) == kind.model_validate(body)
        error = refused(kind, {**body, name: {"something": "else"}})
        assert (error.code, error.param) == ("unsupported", name)


@pytest.mark.parametrize(("kind", "body"), BODIES)
@pytest.mark.parametrize(
    ("name", "value"), [("guided_json_object", 0), ("skip_special_tokens", 1), ("priority", False), ("priority", 5)]
)
def test_true_is_not_one(kind: type[CompletionRequest], body: dict[str, Any], name: str, value: Any) -> None:
    assert refused(kind, {**body, name: value}).param == name


@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_fields_without_effect_have_types_and_change_nothing_else(
    kind: type[CompletionRequest], body: dict[str, Any]
) -> None:
    values: dict[str, Any] = {
        name: next(value for value in ({"a": 1}, True, "low", "x") if accepts(kind, {**body, name: value}))
        for name in WithoutEffect.model_fields
    }
    asked = kind.model_validate({**body, **values})
    assert asked.model_dump(exclude=set(values)) == kind.model_validate(body).model_dump(exclude=set(values))
    for name in values:
        assert refused(kind, {**body, name: [1]}).code == "invalid_request"


def accepts(kind: type[BaseModel], body: dict[str, Any]) -> bool:
    try:
        kind.model_validate(body)
    except ValidationError:
        return False
    return True


def test_all_unsupported_fields_are_named_at_once() -> None:
    message = {"role": "assistant", "content": "x", "tool_calls": [{"id": "a"}], "audio": {"id": "b"}}
    body = {**CHAT, "messages": [*CHAT["messages"], message], "tools": [{"type": "function"}], "colour": "red"}
    body |= {"response_format": {"type": "json_object"}, "best_of_n": {"shape": 1}, "temperature": 9}
    error = refused(ChatRequest, body)
    names = {"messages[1].tool_calls", "messages[1].audio", "tools", "colour", "response_format", "best_of_n.shape"}
    assert all(name in error.message for name in names)
    assert "are not supported; there is no tool calling here" in error.message
    assert (error.code, error.param in names) == ("unsupported", True)


def test_parts_of_messages_are_named_with_the_other_fields() -> None:
    parts = [{"type": "text", "text": "a", "x": 1, "y": 2}, {"type": "image_url", "image_url": {"url": "u"}}]
    for part, names in zip(parts, (("[0].x", "[0].y"), ("[0] (type image_url)",)), strict=True):
        message = {"role": "user", "content": [part]}
        error = refused(ChatRequest, {**CHAT, "messages": [message], "tools": [{"type": "function"}], "n": "2"})
        listed = [f"messages[0].content{name}" for name in names]
        assert sorted(error.message.partition(" are not")[0].split(", ")) == sorted([*listed, "tools"])
        assert error.message.endswith("are not supported; there is no tool calling here")
        assert error.code == "unsupported"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]},
        {"messages": [{"role": "function", "content": "x", "name": "f"}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}]},
    ],
)
def test_a_request_for_tools_is_told_that_there_are_none(fields: dict[str, Any]) -> None:
    error = refused(ChatRequest, {**CHAT, **fields})
    assert error.code == "unsupported"
    assert error.message.endswith("; there is no tool calling here")


def test_other_unsupported_fields_say_nothing_of_tools() -> None:
    assert refused(ChatRequest, {**CHAT, "logprob_token_ids": [1]}).message == "logprob_token_ids is not supported"


def test_an_error_names_a_bounded_number_of_fields() -> None:
    error = refused(ChatRequest, {**CHAT, **{"x" * 500 + str(number): 1 for number in range(120)}})
    assert len(error.message) < 50 * 210
    assert error.message.count("x" * 200) == 1  # names that are cut are equal
    error = refused(ChatRequest, {**CHAT, **{f"x{number}": 1 for number in range(120)}})
    assert "x49 and 70 more are not supported" in error.message
    assert refused(ChatRequest, {f"x{number}": 1 for number in range(129)}).code == "invalid_request"


INTEGERS = ["n", "best_of", "max_tokens", "min_tokens", "top_k", "seed"]


@pytest.mark.parametrize(("kind", "body"), BODIES)
@pytest.mark.parametrize("name", INTEGERS)
def test_a_whole_number_may_be_written_with_a_point(
    kind: type[CompletionRequest], body: dict[str, Any], name: str
) -> None:
    assert getattr(kind.model_validate_json(json.dumps({**body, name: 8.0})), name) == 8
    for wrong in (8.5, True, "8", 1e300, [8]):
        assert refused(kind, {**body, name: wrong}).param == name


def test_whole_numbers_elsewhere() -> None:
    inner = {"candidates": {"min": 2.0, "max": 4.0}, "early_rejection": {"at_tokens": [8.0, 16]}}
    options = ChatRequest.model_validate({**CHAT, "best_of_n": inner, "logprobs": True, "top_logprobs": 2.0})
    assert (options.options.least, options.options.most, options.alternatives) == (2, 4, 2)
    assert TextRequest.model_validate({**TEXT, "prompt": [[1.0, 2]], "logprobs": 3.0}).prompt == [1, 2]
    assert refused(ChatRequest, {**CHAT, "best_of_n": {"candidates": 4.5}}).param == "best_of_n.candidates"


@pytest.mark.parametrize(
    ("prompt", "meant"), [("x", "x"), (["x"], "x"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ([""], "")]
)
def test_a_list_of_one_prompt_is_that_prompt(prompt: Any, meant: Any) -> None:
    assert TextRequest.model_validate({**TEXT, "prompt": prompt}).prompt == meant


@pytest.mark.parametrize("prompt", [["x", "y"], [[1], [2]], [[1], "x"]])
def test_several_prompts_are_told_to_come_one_by_one(prompt: Any) -> None:
    error = refused(TextRequest, {**TEXT, "prompt": prompt})
    assert (error.param, error.code) == ("prompt", "invalid_request")
    assert "one prompt a request" in error.message


@pytest.mark.parametrize("prompt", [[], [[]], [[[1]]], [1, "x"], [None], {}, 5, None])
def test_prompts_that_are_none(prompt: Any) -> None:
    assert refused(TextRequest, {**TEXT, "prompt": prompt}).code == "invalid_request"


def test_the_prompts_log_probabilities_are_refused_with_the_reason() -> None:
    """lm-evaluation-harness asks for them in tasks that compare likelihoods."""
    error = refused(TextRequest, {**TEXT, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0})
    assert (error.param, "loglikelihood" in error.message) == ("echo", True)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70) | st.floats(-3, 3) | st.sampled_from(["", "text", "tool", "user"]),
    lambda items: (
        st.lists(items, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "min", "max", "name", "x"]), items)
    ),
    max_leaves=8,
)
NAMES = sorted({*ChatRequest.model_fields, *TextRequest.model_fields, *compatibility.CHAT, *compatibility.TEXT, "x"})


@given(kind=st.sampled_from([ChatRequest, TextRequest]), body=st.dictionaries(st.sampled_from(NAMES), ANY_JSON))
def test_any_body_is_accepted_or_gets_one_error(kind: type[CompletionRequest], body: dict[str, Any]) -> None:
    whole = {**(CHAT if kind is ChatRequest else TEXT), **body}
    try:
        RequestOptions.of(kind.model_validate(whole))
    except ValidationError as error:
        detail = describe_invalid(error.errors(include_url=False), whole)
        assert detail.code in ("invalid_request", "unsupported")
        assert detail.message
        for name in whole.keys() - kind.model_fields.keys() - kind.neutral.keys():
            assert name in detail.message
