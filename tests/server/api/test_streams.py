"""Streams of several choices: every choice opens, is whole and ends in chunks of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer

SAME = {"seed": 1, "best_of": 6}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


def bodies(path: str, **fields: Any) -> dict[str, Any]:
    prompt = {"messages": [{"role": "user", "content": "Hello"}]} if "chat" in path else {"prompt": "Hello"}
    return {"model": "winnow-demo", **prompt, **SAME, **fields}


def text_of(choice: dict[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice.get("delta", {}).get("content") or "")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("separate", [False, True])
def test_each_choice_ends_in_a_chunk_of_its_own(server: ScriptedServer, path: str, n: int, separate: bool) -> None:
    """Regression: the finish reasons of all choices came in one chunk, and readers of `choices[0]` lost the others."""
    extra = {"stream_options": {"include_usage": True}} if separate else {}
    with server.http as http:
        whole = http.post(path, json=bodies(path, n=n)).json()
        told = http.post(path, json=bodies(path, n=n, stream=True, **extra)).text
    lines = [line[6:] for line in told.splitlines() if line.startswith("data: ")]
    assert (lines.count("[DONE]"), lines[-1]) == (1, "[DONE]")
    chunks = [json.loads(line) for line in lines[:-1]]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks if chunk["choices"])
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    for index, choice in enumerate(whole["choices"]):
        parts = [part for part in choices if part["index"] == index]
        assert "".join(map(text_of, parts)) == (choice.get("text") or choice["message"]["content"])
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
    reports = [chunk for chunk in chunks if "best_of_n" in chunk]
    assert len(reports) == 1
    assert bool(reports[0]["choices"]) is not separate
    if not separate:
        assert reports[0] is chunks[-1]
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [separate]


def test_the_official_sdk_collects_every_choice(server: ScriptedServer) -> None:
    dialog: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
    same: dict[str, Any] = {"model": "winnow-demo", "messages": dialog, "n": 3, "extra_body": {"best_of": 6}}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**same)
        with client.chat.completions.stream(**same) as stream:
            final = stream.get_final_completion()
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 3
    assert [choice.message.content for choice in final.choices] == [item.message.content for item in whole.choices]
