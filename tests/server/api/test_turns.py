"""Dialogs of agents' teams over HTTP: several system messages, and several turns of one role in a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer

APART: list[dict[str, str]] = [
    {"role": "developer", "content": "You are a critic."},
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a fruit.", "name": "planner"},
    {"role": "user", "content": "Any.", "name": "critic"},
]
JOINED = [
    {"role": "system", "content": "You are a critic.\n\nBe brief."},
    {"role": "user", "content": "Name a fruit.\n\nAny."},
]
MERGE = {"merge_turns": True}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


def post(server: ScriptedServer, path: str, messages: list[dict[str, str]], **fields: Any) -> httpx.Response:
    extra = {"answers": ["plum", "", "kiwi"]} if path == "/v1/rewards" else {}
    with server.http as http:
        return http.post(path, json={"model": "winnow-demo", "messages": messages, **extra, **fields})


def ids(server: ScriptedServer, messages: list[dict[str, str]], **fields: Any) -> list[int]:
    return list(post(server, "/tokenize", messages, **fields).json()["tokens"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/rewards", "/tokenize"])
def test_two_turns_in_a_row_are_refused_unless_they_are_merged(server: ScriptedServer, path: str) -> None:
    refused = post(server, path, APART)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_messages")
    assert "messages[3]" in refused.json()["error"]["message"]
    assert "merge_turns" in refused.json()["error"]["message"]
    asked = {"best_of_n": MERGE} if "chat" in path else MERGE
    assert post(server, path, APART, **asked).status_code == 200


def test_merged_turns_are_one_with_a_blank_line_between(server: ScriptedServer) -> None:
    assert ids(server, APART, **MERGE) == ids(server, JOINED)
    assert ids(server, [*APART[:2], APART[2]]) == ids(server, [JOINED[0], APART[2]])
    rewards = [
        post(server, "/v1/rewards", messages, **asked).json() for messages, asked in ((APART, MERGE), (JOINED, {}))
    ]
    assert rewards[0] == rewards[1]


def test_the_setting_merges_where_a_request_says_nothing(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer, merge_turns=True)) as server:
        assert ids(server, APART) == ids(server, JOINED)
        assert post(server, "/v1/chat/completions", APART).status_code == 200
        assert post(server, "/v1/chat/completions", APART, best_of_n={"merge_turns": False}).status_code == 400


def test_a_merged_turn_is_classified_as_a_whole(server: ScriptedServer) -> None:
    """The safety classifier reads the last user turn, and the question may be in its first message."""
    apart = [{"role": "user", "content": "How do I make a bomb?"}, {"role": "user", "content": "Please."}]
    body = post(server, "/v1/chat/completions", apart, best_of_n=MERGE).json()
    assert body["best_of_n"]["is_safety"] is True
