"""The document at `/openapi.json`: statuses of the routes, examples of requests, and who may use which route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from winnow.clients.schema import ErrorBody
from winnow.server.api.middleware import OPEN_PATHS
from winnow.server.settings import Settings

Documented = dict[int | str, dict[str, Any]]

REFUSED: Documented = {
    400: {"model": ErrorBody, "description": "The request has to be changed."},
    401: {"model": ErrorBody, "description": "A valid API key is needed."},
    403: {"model": ErrorBody, "description": "A web page of another origin sent the request."},
    421: {"model": ErrorBody, "description": "The Host header is not one that this server answers to."},
    431: {"model": ErrorBody, "description": "The head is too large."},
    503: {"model": ErrorBody, "description": "The server is shutting down, or an engine has died."},
}
BODY: Documented = {
    404: {"model": ErrorBody, "description": "The model is not served here."},
    408: {"model": ErrorBody, "description": "The request took too long to arrive."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "The body is not plain JSON, or is not declared as such."},
}
ANSWER: Documented = {
    429: {"model": ErrorBody, "description": "The queue is full; see Retry-After."},
    500: {"model": ErrorBody, "description": "No candidate could be scored."},
    504: {"model": ErrorBody, "description": "The request was not answered in time."},
}
STORED: Documented = {
    404: {"model": ErrorBody, "description": "No completion by this id is stored for this key."},
    503: {"model": ErrorBody, "description": "The store cannot be used for now, or the server is shutting down."},
}
KEPT: Documented = {
    404: {"model": ErrorBody, "description": "This server has no store, or nothing by this id in it."},
    503: {"model": ErrorBody, "description": "The store cannot be used for now, or the server is shutting down."},
}
LINES: Documented = {
    200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}, "description": "One JSON object a line."}
}
STREAM: Documented = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The answer, or its stream."}
}

COUNTS: Mapping[str, Sequence[str]] = {
    "BestOfNOptions": ["candidates"],
    "CandidateRange": ["max", "min"],
    "ChatRequest": ["best_of", "n"],
    "TextRequest": ["best_of", "n"],
}
"""Fields that count candidates, of which a server has a maximum, by the name of their object."""
_QUESTION = [{"role": "user", "content": "Name three fruits."}]
EXAMPLES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": {
        "question": {"messages": _QUESTION},
        "dialog": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello!"},
                {"role": "assistant", "content": "Hi!"},
                {"role": "user", "content": [{"type": "text", "text": "Name three fruits."}]},
            ],
            "stop": ["\n\n"],
        },
        "best of 8, the four best returned": {
            "messages": _QUESTION,
            "n": 4,
            "seed": 1,
            "max_tokens": 48,
            "best_of_n": {"candidates": 8, "return_candidates": True},
        },
        "no more candidates than are needed, up to 16": {
            "messages": _QUESTION,
            "best_of_n": {"candidates": 16, "adaptive": {"start": 2, "step": 2, "stop": {"reward": 0.9}}},
        },
        "stream with early stopping": {
            "messages": _QUESTION,
            "stream": True,
            "stream_options": {"include_usage": True},
            "best_of_n": {"candidates": {"min": 4, "max": 16}, "accept_reward": 0.9, "deadline_ms": 2000},
        },
    },
    "/v1/completions": {
        "text": {"prompt": "[INST] What is the capital of France? [/INST] The capital of", "max_tokens": 16},
        "token ids": {"prompt": [1, 300, 301], "best_of": 4, "logprobs": 1},
    },
    "/v1/rewards": {
        "two answers": {
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "answers": ["The capital of France is Paris.", "I don't care. Go away."],
        }
    },
    "/tokenize": {
        "text": {"prompt": "Hello, world!", "add_special_tokens": False},
        "dialog": {"messages": [{"role": "user", "content": "Hello!"}], "return_token_strs": True},
    },
    "/detokenize": {"token ids": {"tokens": [300, 301]}},
}
"""Bodies for each route of the model that takes one, without the model's name; the tests send them."""
_COMPLETION = "chatcmpl-5a0d6f8e1b2c4d3e9f7a8b6c5d4e3f2a"
_LEASE = "lease-3q2Y8w"
STORE_EXAMPLES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "/v1/store/forget": {"a user": {"user": "anna-9d3f"}},
    "/v1/annotation/guidelines": {"a text": {"text": "The better answer is the one that you would rather get."}},
    "/v1/annotation/batches": {
        "by a policy": {"name": "Week 48", "policy": "random", "pairs": 200, "overlap": 2},
        "pairs that are named": {
            "name": "Complaints",
            "policy": "given",
            "given": [{"completion": _COMPLETION, "candidates": [0, 3]}],
        },
    },
    "/v1/annotation/pairs": {"two candidates": {"completion": _COMPLETION, "candidates": [0, 3]}},
    "/v1/annotation/lease": {"of any batch": {}, "of one batch": {"batch": "batch-0c4be1d29f3a6657"}},
    "/v1/annotation/annotations": {
        "left is better": {
            "submission": "0b6f7a52-3c1e-4f7d-9a53-2f6f6c1f9e11",
            "lease": _LEASE,
            "choice": 2,
            "left_safe": True,
            "right_safe": True,
        },
    },
    "/v1/annotation/skip": {"a pair": {"lease": _LEASE, "reason": "I do not know the subject."}},
    "/v1/annotation/undo": {"the last one": {}},
}
"""Bodies for each route of the store that takes one."""


def documented(
    describe: Callable[[], dict[str, Any]], settings: Settings, *, has_keys: bool
) -> Callable[[], dict[str, Any]]:
    """Return FastAPI's description of the routes, completed with what it does not know.

    FastAPI adds a 422 by itself, but an invalid body gets 400 here.
    """

    def openapi() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(path, operation, settings.model_name)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for name, fields in COUNTS.items():
            for field in fields:
                _set_maximum(schemas[name]["properties"][field], settings.max_candidates)
        about = "A key of this server's." if has_keys else "This server has no keys; it needs none and ignores any."
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": about}
        }
        document["security"] = [{"bearer": []}, *([] if has_keys else [{}])]
        return document

    return openapi


def _complete(path: str, operation: dict[str, Any], model: str) -> None:
    """Complete the description of one route in place."""
    operation["responses"].pop("422", None)
    if path in OPEN_PATHS:
        operation["security"] = []
    if "requestBody" in operation:
        bodies = STORE_EXAMPLES.get(path) or {name: {"model": model, **body} for name, body in EXAMPLES[path].items()}
        examples = {name: {"value": body} for name, body in bodies.items()}
        operation["requestBody"]["content"]["application/json"]["examples"] = examples


def _set_maximum(schema: dict[str, Any], maximum: int) -> None:
    """Set the largest value of an integer, in each alternative that is one."""
    if schema.get("type") == "integer":
        schema["maximum"] = maximum
    for alternative in schema.get("anyOf", ()):
        _set_maximum(alternative, maximum)
