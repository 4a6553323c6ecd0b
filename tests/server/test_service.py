"""The service on real engines: an engine that hangs ends the lifecycle; requests fail closed."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ScriptedRewardModel
from tests.live import own_engines, question, serving
from tests.models.engines import tiny_encoders
from winnow.clients.schema import ErrorBody
from winnow.models.engines import registry
from winnow.models.engines.base import EngineOptions
from winnow.models.sampling import Sampling
from winnow.models.types import Message
from winnow.server.aio import cancel
from winnow.server.pipeline.lifecycle import Lifecycle
from winnow.server.service import Service, started
from winnow.server.settings import Settings


@pytest.mark.parametrize(
    ("encoders", "order"),
    [
        ((), ["safety", "helpfulness", "policy"]),
        (("safety",), ["helpfulness", "policy", "safety"]),
        (("helpfulness",), ["safety", "policy", "helpfulness"]),
        (("safety", "helpfulness"), ["policy", "safety", "helpfulness"]),
    ],
)
def test_what_this_process_runs_itself_is_started_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: tuple[str, ...], order: list[str]
) -> None:
    """Loading torch ends forking: with an encoder first, the engines behind it would have to be spawned."""
    begun: list[str] = []
    ended: list[str] = []

    class Recorded(ScriptedRewardModel):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def shutdown(self) -> None:
            ended.append(self.name)

    def start(options: EngineOptions, *_: object) -> Any:
        begun.append(options.name)
        return Recorded(options.name)

    kinds = {name: replace(kind, policy=start, reward_model=start) for name, kind in registry.KINDS.items()}
    for module in ("service", "reward_models"):
        monkeypatch.setattr(f"winnow.server.{module}.KINDS", kinds)
    monkeypatch.setattr("winnow.server.service.prepare", lambda **_: None)
    own: dict[str, Any] = {
        name: {"checkpoint": str(tiny_encoders.encoder(tmp_path / name, "bert"))} for name in encoders
    }
    with started(Settings(**own)) as service:
        assert begun == order
        assert [engine.name for engine in (service.safety, service.helpfulness)] == ["safety", "helpfulness"]  # type: ignore[attr-defined]
    assert ended == begun[::-1]


@pytest.mark.engine
async def test_an_engine_that_hangs_fails_closed_and_ends_the_lifecycle(service: Service) -> None:
    """The second reward model's process is stopped for the time of the test: it lives and answers nothing."""
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
