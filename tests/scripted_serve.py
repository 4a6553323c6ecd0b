"""`winnow serve` on scripted engines, to test its process in seconds: `python -m tests.scripted_serve serve --port 0`.

A candidate takes a hundredth of a second for each token of its `max_tokens`. SIGUSR1 kills the policy's engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Iterator

from tests.fakes import ScriptedPolicy
from tests.live import scripted
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, Prompt
from winnow.server.api import run
from winnow.server.cli.main import main
from winnow.server.service import Service
from winnow.server.settings import Settings


class SlowPolicy(ScriptedPolicy):
    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        await asyncio.sleep(sampling.max_tokens / 100)
        return await super().sample(prompt, sampling, index, handle)


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[Service]:
    policy = SlowPolicy()
    signal.signal(signal.SIGUSR1, lambda *_: policy.shutdown())
    tokenizer = load_tokenizer(settings.policy.checkpoint, "policy")
    yield dataclasses.replace(scripted(tokenizer, policy), settings=settings)


if __name__ == "__main__":
    run.started = started  # type: ignore[attr-defined]
    main()
