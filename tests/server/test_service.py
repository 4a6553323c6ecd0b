"""The service on real engines: an engine that hangs ends the lifecycle; requests fail closed."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from tests.live import own_engines, question, serving
from winnow.clients.schema import ErrorBody
from winnow.models.sampling import Sampling
from winnow.models.types import Message
from winnow.server.aio import cancel
from winnow.server.pipeline.lifecycle import Lifecycle
from winnow.server.service import Service


@pytest.mark.engine
async def test_an_engine_that_hangs_fails_closed_and_ends_the_lifecycle(service: Service) -> None:
    """The last reward model's process is stopped for the time of the test: it lives and answers nothing."""
    impatient = service.settings.model_copy(update={"stall_seconds": 2.0})
    watched = replace(service, settings=impatient, lifecycle=Lifecycle())
    _, helpfulness, _ = own_engines()
    async with serving(watched) as http:
        watch = asyncio.create_task(watched.watch())
        os.kill(helpfulness, signal.SIGSTOP)
        try:
            answer = await http.post("/v1/chat/completions", json=question(best_of=4))
            assert answer.status_code == 503
            error = ErrorBody.model_validate(answer.json()).error
            assert error.code == "engine_dead"
            assert "the helpfulness engine hangs" in error.message
            assert (await http.get("/health")).status_code == 503
            assert watched.lifecycle.is_dead
            assert not watched.is_alive
        finally:
            os.kill(helpfulness, signal.SIGCONT)
            cancel(watch)
    prompt = service.template.render([Message("user", "Hello!")], service.tokenizer)
    assert len((await service.pipeline.select(prompt, Sampling(max_tokens=8), 4, "llama2")).scored) == 4
    assert all(engine.unfinished == 0 for engine in service.engines.values())
