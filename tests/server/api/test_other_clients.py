"""Bodies as other people's clients send them, to the HTTP server on scripted engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer

USER = {"role": "user", "content": "Name three fruits."}
SYSTEM = {"role": "system", "content": "You are a critic."}
NO_TOOLS: dict[str, Any] = {"tools": None, "tool_choice": None, "functions": None, "function_call": None}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


CHATS: dict[str, dict[str, Any]] = {
    "AutoGen 0.2, AG2": {
        "messages": [SYSTEM, {**USER, "name": "user_proxy"}],
        "stream": False,
        "temperature": 0.7,
        "tools": None,
    },
    "AutoGen 0.4": {
        "messages": [{**SYSTEM, "name": "critic"}, {**USER, "name": "user"}],
        "stream": False,
        "parallel_tool_calls": False,
    },
    "Semantic Kernel agents": {
        "messages": [
            {**SYSTEM, "role": "developer", "name": "Critic"},
            USER,
            {"role": "assistant", "name": "Writer", "content": "plum"},
            {**USER, "name": "Critic"},
        ],
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "n": 1,
        "store": False,
        "metadata": {},
        "modalities": ["text"],
        "stop": [],
        **NO_TOOLS,
    },
    "vllm bench serve": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "fruit"}]}],
        "max_completion_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "repetition_penalty": 1.0,
        "top_k": -1,
        "min_p": 0.0,
    },
    "GuideLLM": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "fruit"}]}],
        "max_completion_tokens": 16,
        "stop": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "lm-evaluation-harness": {
        "messages": [{**USER, "type": "text"}],
        "max_tokens": 256,
        "temperature": 0,
        "stop": ["</s>"],
        "seed": 1234,
    },
    "Zed": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "fruit"}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 64,
        "temperature": 1.0,
        "parallel_tool_calls": True,
        "prompt_cache_key": "thread-1",
        "reasoning_effort": "low",
    },
    "Continue": {
        "messages": [SYSTEM, USER],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
        "prediction": {"type": "content", "content": "plum"},
        "stop": None,
    },
    "the OpenAI SDK, all hints": {
        "messages": [USER],
        "metadata": {"run": "7"},
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_retention": "24h",
        "safety_identifier": "u-1",
        "service_tier": "flex",
        "store": True,
        "user": "u-1",
        "verbosity": "low",
        "response_format": {"type": "text"},
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": True},
    },
    "a JavaScript client": {"messages": [USER], "max_tokens": 8.0, "n": 1.0, "seed": -1, "top_k": 0},
}
TEXTS: dict[str, dict[str, Any]] = {
    "lm-evaluation-harness": {
        "prompt": [[1, 300, 301]],
        "max_tokens": 256,
        "temperature": 0,
        "stop": ["Question:", "</s>"],
        "seed": 1234,
    },
    "vllm bench serve": {
        "prompt": "Name three fruits.",
        "repetition_penalty": 1.0,
        "max_tokens": 16,
        "logprobs": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    },
    "Continue's autocompletion": {"prompt": "def f(", "max_tokens": 64, "stream": True, "suffix": "", "stop": ["\n\n"]},
    "a text in a list": {"prompt": ["Name three fruits."], "max_tokens": 16.0},
}
REQUESTS = [("/v1/chat/completions", name) for name in CHATS] + [("/v1/completions", name) for name in TEXTS]


@pytest.mark.parametrize(("path", "name"), REQUESTS)
def test_its_requests_are_answered(server: ScriptedServer, path: str, name: str) -> None:
    body = (CHATS if "chat" in path else TEXTS)[name]
    with server.http as http:
        response = http.post(path, json={"model": "winnow-demo", **body})
    assert response.status_code == 200, response.text
    assert "error" not in response.text
