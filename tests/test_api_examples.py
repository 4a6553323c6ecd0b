"""`docs/api.md` matches the server: its examples are executed, and it has every field, status and code."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import LiveServer, Reachable, ScriptedServer, scripted
from tests.server.api.test_stored import recording
from winnow.clients import schema
from winnow.clients.schema import compatibility
from winnow.models.errors import EngineDead, ModelUnavailable, PolicyUnavailable, StoreError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys, Key
from winnow.server.service import Service
from winnow.server.store.preparing import Preparer
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.recorder import Recorder
from winnow.server.store.redaction import Redactor
from winnow.server.store.store import Store

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
ONLY_ON_CONNECTIONS = {"request_timeout", "headers_too_large", "too_many_headers", "invalid_http"}
"""Codes of requests that reach no route; tests/server/api/test_h11_protocol.py has them."""
LOCKED = ApiKeys(
    [
        Key(hashlib.sha256(b"wk-3f9a5c0d77").digest()),
        Key(hashlib.sha256(b"wk-77b1e0c4aa").digest(), frozenset({"annotate"}), "anna"),
    ]
)
"""The keys of the server of the examples marked `locked`."""


class Example(NamedTuple):
    """A request on the page, the status and code it should get, and the answer shown, if there is one."""

    where: str
    method: str
    path: str
    status: int
    code: str | None
    headers: dict[str, str]
    body: str
    answer: Any


def examples() -> Iterator[Example]:
    blocks = re.findall(r"^```(http[ \w]*|json|)\n(.*?)^```$", PAGE, re.M | re.S)
    for (kind, text), (next_kind, next_text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if not kind.startswith("http"):
            continue
        first, _, rest = text.partition("\n")
        method, path, _, status, *code = first.split()
        head, _, body = rest.partition("\n\n") if not rest.startswith("{") else ("", "", rest)
        headers = dict(line.split(": ", 1) for line in head.splitlines()) if not rest.startswith("{") else {}
        answer = json.loads(next_text) if next_kind == "json" else None
        yield Example(
            kind.partition(" ")[2], method, path, int(status), next(iter(code), None), headers, body.strip(), answer
        )


EXAMPLES = list(examples())


@contextlib.contextmanager
def scene(where: str, tokenizer: Tokenizer) -> Iterator[Reachable]:
    """Yield a server in the state of the examples marked `where`."""

    def away(_: object) -> float:
        raise ModelUnavailable("safety", "it cannot be connected to")

    def gone(_: object) -> Sequence[int]:
        raise PolicyUnavailable("policy", "it cannot be connected to")

    def broken(_: object) -> float:
        raise ZeroDivisionError

    if where == "stored":
        with tempfile.TemporaryDirectory() as folder, recording(tokenizer, Path(folder)) as running:
            yield running
        return
    services: dict[str, Service] = {
        "locked": scripted(tokenizer, trusted_hosts=("127.0.0.1",)),
        "small": scripted(tokenizer, max_body_bytes=1000),
        "full": scripted(tokenizer, max_queued_candidates=0),
        "unscorable": scripted(tokenizer, safety=ScriptedRewardModel(logit=lambda ids: float("nan"))),
        "broken": scripted(tokenizer, safety=ScriptedRewardModel(logit=broken)),
        "away": scripted(tokenizer, safety=ScriptedRewardModel(logit=away)),
        "gone": scripted(tokenizer, ScriptedPolicy(answers=gone)),
        "dead": scripted(tokenizer),
        "draining": scripted(tokenizer),
        "unstored": scripted(tokenizer),
        "slow": scripted(tokenizer, ScriptedPolicy(hold=asyncio.Event()), request_seconds=0.05),
    }
    service = services[where]
    keys = LOCKED if where == "locked" else None
    if where == "full":
        service.admission.enter("another", 256, 0)
    if where == "dead":
        service.lifecycle.end(EngineDead("the safety engine has died"))
    service.lifecycle.is_draining = where == "draining"
    if where == "unstored":
        with unusable_store() as recorder, ScriptedServer.start(replace(service, recorder=recorder)) as running:
            yield running
        return
    with ScriptedServer.start(service, keys) as running:
        yield running


@contextlib.contextmanager
def unusable_store() -> Iterator[Recorder]:
    """Yield a running recorder whose store cannot be opened."""

    def full() -> Store:
        raise StoreError("full", "the disk is full")

    preparer = Preparer(Redactor(()), Pseudonyms(b"key"), 0)
    with Recorder("sqlite", "all", full, {}, preparer).running() as recorder:
        yield recorder


def shape(value: Any) -> Any:
    """Return the fields of a body and of the first item of each list, with the type of each value."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items() if name not in ("text", "helpfulness")}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def check(server: Reachable, example: Example) -> None:
    body = example.body
    if example.where == "small":
        body = body.replace("…", "x" * 1000)
    headers = {"Content-Type": "application/json", **example.headers}
    with server.http as http:
        response = http.request(example.method, example.path, content=body.encode(), headers=headers)
    assert response.status_code == example.status, response.text
    if example.status >= 400 and example.path not in ("/health", "/ready"):
        assert schema.ErrorBody.model_validate(response.json()).error.code == example.code
    if example.answer is not None:
        told = response.json()
        if "logprobs" in example.body and told.get("object") == "text_completion":
            told["choices"][0]["logprobs"]["top_logprobs"] = example.answer["choices"][0]["logprobs"]["top_logprobs"]
        if '"adaptive"' in example.body:
            told["best_of_n"]["aborted"] = []  # whether a wave was started ahead depends on the time
        assert shape(told) == shape(example.answer)


@pytest.mark.engine
@pytest.mark.parametrize("example", [each for each in EXAMPLES if not each.where], ids=lambda each: each.path)
def test_an_example(server: LiveServer, example: Example) -> None:
    check(server, example)


@pytest.mark.parametrize("where", sorted({each.where for each in EXAMPLES} - {""}))
def test_the_examples_of_a_state(tokenizer: Tokenizer, where: str) -> None:
    with scene(where, tokenizer) as server:
        for example in EXAMPLES:
            if example.where == where:
                check(server, example)


@pytest.mark.parametrize(
    "body", [item for item in vars(schema).values() if isinstance(item, type) and issubclass(item, BaseModel)]
)
def test_every_field_is_documented(body: type[BaseModel]) -> None:
    for name in body.model_fields:
        assert re.search(rf"[`\".]{name}[`\"]", PAGE), f"{body.__name__}.{name}"


@pytest.mark.parametrize("table", [compatibility.CHAT, compatibility.TEXT, compatibility.MESSAGE])
def test_every_field_that_is_passed_over_is_documented(table: dict[str, Any]) -> None:
    section = PAGE.split("### Fields of other APIs", 1)[1].split("```", 1)[0]
    for name in table:
        assert re.search(rf"[`.]{name}`", section), name


def test_every_code_and_status_is_documented_and_every_code_executed() -> None:
    table = PAGE.split("## Errors", 1)[1].split("```", 1)[0]
    codes = {
        code for row in table.splitlines() for code in re.findall(r"`(\w+)`", row.split("|")[2] if "|" in row else "")
    }
    executed = {example.code for example in EXAMPLES if example.code}
    assert codes - {"code"} - ONLY_ON_CONNECTIONS == executed


def test_every_status_that_the_openapi_document_names_is_on_the_page(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as server, server.http as http:
        document = http.get("/openapi.json").json()
    statuses = {
        status
        for path in document["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
    }
    assert "422" not in statuses
    for status in statuses:
        assert re.search(rf"\b{status}\b", PAGE), status
