"""Both clients against the real HTTP server, over scripted engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.any_client import Kind, opened
from tests.live import ScriptedServer, scripted
from winnow.clients import (
    Answer,
    ContextLengthExceeded,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    Piece,
    Progress,
    ShuttingDown,
)
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.settings import Settings

KEY = "sk-0123456789"


@pytest.fixture(scope="module")
def scripted_server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    settings = Settings(api_keys=(KEY,))
    with ScriptedServer.start(scripted(tokenizer), ApiKeys.of(settings)) as server:
        yield server


async def test_all_calls(client_kind: Kind, scripted_server: ScriptedServer) -> None:
    url = f"{scripted_server.url}/v1"
    async with opened(client_kind, url, api_key=KEY) as client:
        assert await client.health()
        assert await client.ready()
        (card,) = await client.models()
        answer = await client.answer("Hello!", candidates=4, n=2, return_candidates=True, request_id="mine")
        assert len(answer.candidates) + len(answer.failed) == 4
        assert answer.candidates[0] == answer.winner
        assert answer.text == answer.winner.text
        assert len(answer.texts) == 2
        assert (answer.completion.model, answer.request_id) == (card.id, "mine")
        (rating,) = await client.rewards("Hello!", [answer.text], is_safety=False)
        assert 0 < rating.combined < 1
        tokens = await client.tokenize("Hello!")
        assert await client.detokenize(tokens.tokens[1:]) == "Hello!"


async def test_a_stream(client_kind: Kind, scripted_server: ScriptedServer) -> None:
    url = f"{scripted_server.url}/v1"
    async with opened(client_kind, url, api_key=KEY) as client:
        events = [event async for event in client.events("Hello!", candidates=4, n=2, seed=1)]
    assert any(isinstance(event, Progress) for event in events)
    answer = events[-1]
    assert isinstance(answer, Answer)
    for index, text in enumerate(answer.texts):
        assert "".join(event.text for event in events if isinstance(event, Piece) and event.index == index) == text


async def test_refusals(client_kind: Kind, scripted_server: ScriptedServer) -> None:
    url = f"{scripted_server.url}/v1"
    async with opened(client_kind, url, api_key=KEY) as client:
        with pytest.raises(ModelNotFound):
            await client.answer("Hello!", model="other")
        with pytest.raises(ContextLengthExceeded) as refused:
            await client.answer("Hello!", max_tokens=10**6)
        assert (refused.value.status, refused.value.param) == (400, "max_tokens")
        with pytest.raises(InvalidRequest, match="template"):
            await client.answer("[INST]")
    async with opened(client_kind, url, api_key="sk-9876543210") as client:
        with pytest.raises(InvalidKey):
            await client.models()
        assert await client.ready()


async def test_a_draining_server(client_kind: Kind, tokenizer: Tokenizer) -> None:
    service = scripted(tokenizer)
    with ScriptedServer.start(service) as server:
        url = f"{server.url}/v1"
        async with opened(client_kind, url) as client:
            service.lifecycle.is_draining = True
            with pytest.raises(ShuttingDown):
                await client.answer("Hello!")
            assert not await client.ready()
            assert await client.health()
    assert len(client.pauses) == 2
