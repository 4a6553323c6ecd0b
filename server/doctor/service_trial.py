"""The trial of all three engines, started as the service starts them: memory plan, start, and the best of K answers."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Any

from winnow.models.engines.environment import START_METHOD
from winnow.models.engines.memory import MemoryPlan
from winnow.server.doctor.engine_trials import CANDIDATES, LONGEST_PROMPT
from winnow.server.doctor.notes import Notes
from winnow.server.doctor.words import Words, require_lengths
from winnow.server.memory_plan import plan
from winnow.server.service import Service, started
from winnow.server.settings import Settings

REQUESTS = 3
"""Requests of each K; the first one of all is answered before, as the service's warm-up."""
ANSWER_TOKENS = {True: 256, False: 64}
"""Tokens of each answer, on a GPU and on CPU."""
SLOW_SECONDS = 30.0
"""A request that takes longer is not repeated."""


def service(settings: Settings, notes: Notes) -> None:
    """Start the three engines, and select the best of K answers for each K."""
    notes.at("planning the memory")
    notes.found["plan"] = plan_as_json(plan(settings))
    notes.at("starting the three engines")
    begun = time.perf_counter()
    with started(settings) as running:
        notes.found |= {
            "start_seconds": time.perf_counter() - begun,
            "start_method": os.environ.get(START_METHOD),
            "dtypes": {name: engine.dtype for name, engine in running.engines.items()},
            "context": running.context,
        }
        notes.ready_at = time.monotonic()
        notes.at("answering the first request")
        asyncio.run(_select(running, Words.of(settings, running.tokenizer), notes))


def plan_as_json(planned: MemoryPlan) -> dict[str, Any]:
    """Return a memory plan as values of JSON; sizes in bytes."""
    return {
        "total": planned.memory.total,
        "free": planned.memory.free,
        "needed": planned.needed,
        "margin": planned.margin,
        "engines": {
            engine.model.name: {
                "weights": engine.model.weights,
                "overhead": engine.overhead,
                "kv_cache": engine.kv_cache,
                "held": engine.held,
                "share": engine.share,
            }
            for engine in planned.engines
        },
    }


async def _select(running: Service, words: Words, notes: Notes) -> None:
    begun = time.perf_counter()
    await running.warm_up()
    notes.found["first_request_seconds"] = time.perf_counter() - begun
    notes.found["best_of"] = rows = []
    most = min(running.settings.max_candidates_in_flight, running.settings.max_sequences)
    for candidates in (count for count in CANDIDATES if count <= most):
        notes.at(f"selecting the best of {candidates}")
        for number in range(REQUESTS):
            rows.append(await _select_one(running, words, candidates, number))
            notes.write()
            if rows[-1]["seconds"] > SLOW_SECONDS:
                break


async def _select_one(running: Service, words: Words, candidates: int, number: int) -> dict[str, Any]:
    room = running.context - min(LONGEST_PROMPT, running.context // 4)
    prompt = words.prompt(running.context - room, seed=1000 * candidates + number)
    tokens = min(ANSWER_TOKENS[running.card is not None], room)
    begun = time.perf_counter()
    selection = await running.pipeline.select(prompt, words.sampling(tokens), candidates, running.combiner)
    seconds = time.perf_counter() - begun
    lengths = [item.candidate.tokens for item in selection.scored]
    require_lengths(lengths, tokens)
    logits = [(item.reward.safety_logit, item.reward.helpfulness_logit) for item in selection.scored]
    return {
        "candidates": candidates,
        "prompt_tokens": len(prompt.token_ids),
        "lengths": lengths,
        "scored": sum(all(logit is not None and math.isfinite(logit) for logit in pair) for pair in logits),
        "failures": sorted({failure.reason for failure in selection.failures}),
        "seconds": seconds,
        "score_tail_seconds": selection.timings.score_tail,
    }
