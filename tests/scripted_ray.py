"""Winnow on Ray with scripted engines: `python -m tests.scripted_ray distill … --ray ADDRESS`, or `… serve --ray …`.

A candidate takes some hundredths of a second, unevenly, by its prompt and its number, as of real engines: the same on
every machine. One of `LONG` tokens or more takes a minute. Rewards follow from the same numbers. Engines run
`max_sequences` candidates at once. `update ADDRESS MAX_TOKENS` replaces what is served by one with another default.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerFast

from tests.fakes import ScriptedPolicy, ScriptedRewardModel, candidate
from tests.live import scripted
from winnow.models.engines.checkpoint import tokenizer_of
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, Prompt
from winnow.server.api import run as serving
from winnow.server.cli.main import main
from winnow.server.distill import command
from winnow.server.pipeline.admission import Admission
from winnow.server.ray import online
from winnow.server.ray.app import NAME, Replicas, application
from winnow.server.ray.cluster import Share
from winnow.server.service import Service
from winnow.server.settings import Settings

TICK = "SCRIPTED_TICK"
"""Environment variable: seconds of a scripted candidate's unit of work; a candidate takes 1 to 9 of them."""


LONG = 1000


@dataclass
class UnevenPolicy(ScriptedPolicy):
    """Takes time that follows from prompt, seed and number, and answers with numbers that do, too."""

    tick: float = 0.01
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(256))

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        drawn = zlib.crc32(f"{prompt.token_ids} {sampling.seed} {index}".encode())
        async with self.places:
            self.running.add(index)
            self.unfinished += 1
            try:
                units = 1 + (drawn % 9 if drawn % 10 else 8)
                await asyncio.sleep(60 if sampling.max_tokens >= LONG else self.tick * units)
                return candidate(index, (drawn % 1000,))
            finally:
                self.unfinished -= 1
                self.running.discard(index)


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[Service]:
    # Not by transformers' AutoTokenizer, which imports torch: 3 s of CPU, for each actor.
    loaded = PreTrainedTokenizerFast.from_pretrained(settings.policy.checkpoint)
    tokenizer = tokenizer_of(loaded, settings.policy.checkpoint, "policy")
    policy = UnevenPolicy(tick=float(os.environ.get(TICK, "0.01")), places=asyncio.Semaphore(settings.max_sequences))
    admission = Admission(settings.max_candidates_in_flight, settings.max_queued_candidates, settings.max_queued_tokens)
    yield replace(scripted(tokenizer, policy, ScriptedRewardModel()), settings=settings, admission=admission)


def run() -> None:
    from tests import scripted_ray  # not __main__, which no actor can import

    command.started = scripted_ray.started  # type: ignore[attr-defined]
    online.started = scripted_ray.started  # type: ignore[attr-defined]
    serving.started = scripted_ray.started  # type: ignore[attr-defined]
    if sys.argv[1] == "update":
        update(*sys.argv[2:])
    else:
        main()


def update(address: str, port: str, max_tokens: str) -> None:
    """Replace what is served, a replica at a time, and return as that is done."""
    import ray
    from ray import serve

    from tests import scripted_ray

    ray.init(address, log_to_driver=False)
    settings = Settings(canary=False, port=int(port), max_tokens=int(max_tokens))
    serve.run(application(settings, Replicas(2, 2), Share(2), scripted_ray.started), name=NAME, route_prefix="/")
    ray.shutdown()


if __name__ == "__main__":
    run()
