"""Pydantic's errors as messages that name the part at fault and what it may be."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from winnow.clients import schema
from winnow.clients.schema import ChatRequest, ErrorDetail, Request, TextRequest, TokenizeRequest
from winnow.clients.schema.base import integral
from winnow.clients.validation_errors import MAX_PATH, describe_invalid

QUESTION = [{"role": "user", "content": "x"}]
TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "min", "x"]), items),
    max_leaves=5,
)


def refusal(kind: type[Request], body: Any) -> ErrorDetail:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    return describe_invalid(caught.value.errors(include_url=False, include_input=False), body)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": QUESTION, **fields}


def count(value: Any) -> dict[str, Any]:
    return chat(best_of_n={"candidates": value})


def content(value: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": value}])


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ChatRequest, content([TEXT, IMAGE]), "messages[0].content[1]: type image_url is not supported, only text"),
        (ChatRequest, content([{"type": "\n"}]), "messages[0].content[0]: this type is not supported, only text"),
        (ChatRequest, content([TEXT, {"type": "text"}]), "messages[0].content[1].text: Field required"),
        (ChatRequest, content([{**TEXT, "text": 5}]), "messages[0].content[0].text: Input should be a string"),
        (ChatRequest, content([{**TEXT, "cache": 1}]), "messages[0].content[0].cache is not supported"),
        (ChatRequest, content(["x"]), "messages[0].content[0]: Input should be an object"),
        (ChatRequest, content(TEXT), "messages[0].content: Input should be a string or a list of text parts"),
        (ChatRequest, content(12), "messages[0].content: Input should be a string or a list of text parts"),
        (ChatRequest, chat(stop=[*"abcde"]), "stop: List should have at most 4 items after validation, not 5"),
        (ChatRequest, chat(stop=["a", ""]), "stop[1]: String should have at least 1 character"),
        (ChatRequest, chat(stop=["a", 1]), "stop[1]: Input should be a string"),
        (ChatRequest, chat(stop=""), "stop: String should have at least 1 character"),
        (ChatRequest, chat(stop=5), "stop: Input should be a string or a list of strings"),
        (ChatRequest, count("4"), "best_of_n.candidates: Input should be an integer or an object"),
        (ChatRequest, count(0), "best_of_n.candidates: Input should be greater than or equal to 1"),
        (ChatRequest, chat(best_of_n={"adaptive": ""}), "best_of_n.adaptive: Input should be an object or false"),
        (ChatRequest, count({"min": 1}), "best_of_n.candidates.max: Field required"),
        (ChatRequest, chat(logit_bias={"300": 101}), "logit_bias.300: Input should be less than or equal to 100"),
        (ChatRequest, chat(logit_bias={"[a": "x"}), "logit_bias.[a: Input should be a number"),
        (ChatRequest, chat(str=1), "str is not supported"),
        (ChatRequest, chat(temperature="hot"), "temperature: Input should be a number"),
        (ChatRequest, [], "the body: Input should be an object"),
        (TextRequest, {"model": "m", "prompt": ["a", "b"]}, "prompt: one prompt a request; send a request for each"),
        (TextRequest, {"model": "m", "prompt": [1, -1]}, "prompt[1]: Input should be greater than or equal to 0"),
        (TextRequest, {"model": "m", "prompt": [1, "a"]}, "prompt[1]: Input should be an integer"),
        (TextRequest, {"model": "m", "prompt": [None]}, "prompt[0]: Input should be an integer"),
        (TextRequest, {"model": "m", "prompt": [[1, "a"]]}, "prompt[0][1]: Input should be an integer"),
        (TextRequest, {"model": "m", "prompt": [["a"]]}, "prompt[0][0]: Input should be an integer"),
        (TextRequest, {"model": "m", "prompt": [[1, 2.5]]}, "prompt[0][1]: Input should be an integer"),
        (
            TextRequest,
            {"model": "m", "prompt": [[]]},
            "prompt[0]: List should have at least 1 item after validation, not 0",
        ),
        (TokenizeRequest, {}, "send either prompt or messages"),
    ],
)  # fmt: skip
def test_the_part_at_fault_is_named(kind: type[Request], body: Any, message: str) -> None:
    """Regression: of a union the first member was reported, so that five stops "should be a valid string"."""
    assert refusal(kind, body).message == message


def kinds(annotation: Any) -> set[type]:
    """Return the kinds of JSON value that an annotation takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds(arguments[0])
    if origin in (Union, UnionType):
        return set().union(*map(kinds, arguments))
    if isinstance(annotation, type) and issubclass(annotation, Request):
        return {dict}
    return {origin or annotation}


UNIONS = [
    (owner, name, found)
    for owner in vars(schema).values()
    if isinstance(owner, type) and issubclass(owner, Request)
    for name, field in owner.model_fields.items()
    if len((found := kinds(field.annotation)) - {NoneType}) > 1
]


@pytest.mark.parametrize(
    ("messages", "names"),
    [
        ([{**QUESTION[0], "a": 1}, {**QUESTION[0], "b": 1}], "messages[0].a, messages[1].b, zap are not supported"),
        (
            [QUESTION[0], {"role": "assistant", "content": None, "tool_calls": [1]}, {"role": "tool", "content": "x"}],
            "messages[1].tool_calls, messages[2].role (tool), zap are not supported; there is no tool calling here",
        ),
        (
            [{"role": "user", "content": [{**TEXT, "x": 1}, IMAGE, {**TEXT, "y": 1}]}],
            "messages[0].content[0].x, messages[0].content[1] (type image_url), messages[0].content[2].y, zap "
            "are not supported",
        ),
        (
            [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": [TEXT, {"type": "file"}]}],
            "messages[0].content[0] (type image_url), messages[1].content[1] (type file), zap are not supported",
        ),
        ([{"role": "user"}, {**QUESTION[0], "a": 1}], "messages[1].a, zap are not supported"),
    ],
)
def test_the_unsupported_fields_of_all_messages_are_named(messages: list[Any], names: str) -> None:
    """Those behind the first refused message or part came to light only once that was mended."""
    message = refusal(ChatRequest, chat(messages=messages, zap=1)).message
    found, _, end = message.partition(" are not supported")
    wanted, _, wanted_end = names.partition(" are not supported")
    assert (set(found.split(", ")), end) == (set(wanted.split(", ")), wanted_end)


def test_the_errors_of_many_messages_are_bounded() -> None:
    body = chat(messages=[{**QUESTION[0], f"f{index}": 1} for index in range(900)])
    assert refusal(ChatRequest, body).message.endswith(" and 1 more are not supported")


def test_the_unions_are_found() -> None:
    assert {name for _, name, _ in UNIONS} >= {"content", "stop", "prompt", "candidates"}


@given(st.sampled_from(UNIONS), JSON)
def test_a_union_refuses_the_kind_of_a_value_only_if_no_member_has_it(
    union: tuple[type[Request], str, set[type]], value: Any
) -> None:
    owner, field, allowed = union
    body = {field: value}
    with pytest.raises(ValidationError) as caught:
        owner.model_validate({**body, "not a field": 1})
    about = [error for error in caught.value.errors(include_url=False) if error["loc"][0] == field]
    if about:
        detail = describe_invalid(about, body)
        assert (detail.param or "").startswith(field)
        assert (detail.message.startswith(f"{field}: Input should be a")) == (type(integral(value)) not in allowed)


@given(st.text(max_size=300))
def test_a_path_is_bounded_and_no_name_breaks_it(name: str) -> None:
    assert refusal(ChatRequest, chat(**{f"x{name}": 1})).param == f"x{name}"[:MAX_PATH]
