"""The OpenAPI document: valid, its examples work, and every limit that it states is the server's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.live import ScriptedServer, scripted
from winnow.clients import schema
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.documentation import EXAMPLES, STORE_EXAMPLES
from winnow.server.settings import Settings

KEY = "wk-3f9a5c0d77"
BODIES = {
    "/v1/chat/completions": schema.ChatRequest,
    "/v1/completions": schema.TextRequest,
    "/v1/rewards": schema.RewardsRequest,
    "/tokenize": schema.TokenizeRequest,
    "/detokenize": schema.DetokenizeRequest,
    "/v1/store/forget": schema.ForgetRequest,
    "/v1/annotation/guidelines": schema.NewGuidelines,
    "/v1/annotation/batches": schema.NewBatch,
    "/v1/annotation/pairs": schema.GivenPair,
    "/v1/annotation/lease": schema.LeaseRequest,
    "/v1/annotation/annotations": schema.NewAnnotation,
    "/v1/annotation/skip": schema.SkipRequest,
    "/v1/annotation/undo": schema.UndoRequest,
}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: ScriptedServer) -> dict[str, Any]:
    with server.http as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a JSON value."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(item)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def body_schema(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the schema of a route's body, with the schemas that it refers to."""
    reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return {**reference, "components": document["components"]}


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert set(document["info"]) >= {"title", "version"}
    assert set(document) <= {"openapi", "info", "paths", "components", "security", "servers", "tags"}
    schemes = document["components"]["securitySchemes"]
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in ("get", "post", "delete")
        parameters = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert parameters == set(re.findall(r"{(\w+)}", path))
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert response["description"]
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media in part.get("content", {}).values():
                Draft202012Validator.check_schema(media.get("schema", {}))
    for requirement in (each for part in nodes(document) for each in part.get("security", [])):
        assert set(requirement) <= set(schemes)
    for each in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(each)
    for reference in (part["$ref"] for part in nodes(document["paths"]) if "$ref" in part):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_each_route_with_a_body_has_examples_and_each_is_answered(
    document: dict[str, Any], server: ScriptedServer
) -> None:
    posts = {
        path for path, method, operation in operations(document) if method == "post" and operation.get("requestBody")
    }
    assert posts == set(EXAMPLES) | set(STORE_EXAMPLES) == set(BODIES)
    with server.http as http:
        for path in posts:
            examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
            for example in examples.values():
                BODIES[path].model_validate(example["value"])
                Draft202012Validator(body_schema(document, path)).validate(example["value"])
                status = 404 if path in STORE_EXAMPLES else 200  # this server has no store
                assert http.post(path, json=example["value"]).status_code == status, example


def wrong_values(part: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values just beyond each limit that a schema states, in each of its alternatives."""
    for limit, value in part.items():
        match limit:
            case "minItems" | "minLength" if value == 1:
                yield [] if limit == "minItems" else ""
            case "maxItems":
                yield ["a"] * (value + 1)
                yield [1] * (value + 1)
            case "maxLength":
                yield "a" * (value + 1)
            case "maxProperties":
                yield {str(key): 1 for key in range(value + 1)}
            case "minimum" | "exclusiveMinimum":
                yield int(value) - 1 if limit == "minimum" else int(value)
            case "maximum" | "exclusiveMaximum":
                yield int(value) + 1 if limit == "maximum" else int(value)
            case "enum" | "const":
                yield "another"
            case "anyOf":
                for alternative in value:
                    yield from wrong_values(alternative)
            case "items":
                yield from ([wrong] for wrong in wrong_values(value))


def test_every_limit_is_the_servers(document: dict[str, Any], server: ScriptedServer) -> None:
    """The document and the server refuse the same values."""
    stated = 0
    with server.http as http:
        for path, examples in EXAMPLES.items():
            body = {"model": "winnow-demo", **next(iter(examples.values()))}
            validator = Draft202012Validator(body_schema(document, path))
            properties = document["components"]["schemas"][BODIES[path].__name__]["properties"]
            for field, part in properties.items():
                for wrong in wrong_values(part):
                    changed = {**body, field: wrong}
                    if len(json.dumps(changed)) < 200_000 and not validator.is_valid(changed):
                        answer = http.post(path, json=changed)
                        assert answer.status_code in (400, 404), (field, wrong)
                        stated += 1
    assert stated > 60


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("/v1/chat/completions", {"n": 65}),
        ("/v1/chat/completions", {"logit_bias": {"hello": 1}}),
        ("/v1/completions", {"logit_bias": {"-5": 1}}),
        ("/v1/chat/completions", {"best_of_n": {"candidates": 65}}),
        ("/v1/chat/completions", {"best_of_n": {"candidates": {"min": 1}}}),
        ("/v1/chat/completions", {"best_of_n": {"early_rejection": {"at_tokens": []}}}),
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/rewards", {"answers": None}),
        ("/tokenize", {"prompt": None}),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"token": 1}),
    ],
)
def test_what_the_document_refuses_the_server_refuses(
    document: dict[str, Any], server: ScriptedServer, path: str, wrong: dict[str, Any]
) -> None:
    body = {"model": "winnow-demo", **next(iter(EXAMPLES[path].values())), **wrong}
    assert not Draft202012Validator(body_schema(document, path)).is_valid(body)
    with server.http as http:
        assert http.post(path, json=body).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "response_format": {"type": "text"}, "store": None},
        {"stop": None, "logit_bias": {"300": -100}, "n": None},
        {"best_of_n": {"candidates": {"min": 1, "max": 2}}},
        {"messages": [{"role": "user", "content": [], "name": None}]},
    ],
)
def test_what_the_server_accepts_the_document_accepts(
    document: dict[str, Any], server: ScriptedServer, fields: dict[str, Any]
) -> None:
    body = {"model": "winnow-demo", **EXAMPLES["/v1/chat/completions"]["question"], **fields}
    Draft202012Validator(body_schema(document, "/v1/chat/completions")).validate(body)
    with server.http as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_security_is_as_the_server_has_it(document: dict[str, Any], tokenizer: Tokenizer) -> None:
    keys = ApiKeys.of(Settings(api_keys=(KEY,)))
    with ScriptedServer.start(scripted(tokenizer, served_model_name="mine"), keys) as locked, locked.http as http:
        described = http.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
        for path, method, operation in operations(described):
            is_open = operation.get("security", described["security"]) == []
            answer: httpx.Response = http.request(method, path)
            assert (answer.status_code == 401) == (not is_open), path
        question = described["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]
        assert {each["value"]["model"] for each in question["examples"].values()} == {"mine"}
    assert described["security"] == [{"bearer": []}]
    assert document["security"] == [{"bearer": []}, {}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
