"""Trials of one engine by itself, with the part of the memory that it gets beside the others."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from winnow.models.engines.base import EngineOptions, ServedPolicy, ServedRewardModel
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.engines.environment import START_METHOD, may_fork, prepare
from winnow.models.engines.registry import KINDS
from winnow.models.sampling import Sampling
from winnow.models.statistics import median
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Prompt
from winnow.server.doctor.notes import Notes
from winnow.server.doctor.words import Words, require_lengths
from winnow.server.engine_options import engine_options
from winnow.server.memory_plan import engine_parts
from winnow.server.reward_models import inspect_reward_models, scorings
from winnow.server.settings import Settings

CANDIDATES = (1, 4, 16)
REPEATS = 3
LONGEST_PROMPT, LONGEST_ANSWER = 256, 512
SHORT_TOKENS, LONG_TOKENS = 8, 128
"""Tokens of a short answer, and the most by which a long one is longer: the difference is the time of decode steps."""
DECODE_SECONDS = 15.0
"""Time that a long answer may take; it is shorter where steps are slow."""


def policy(settings: Settings, notes: Notes) -> None:
    """Start the policy's engine alone, and measure its decode steps for 1, 4 and 16 candidates."""
    fork, tokenizer = _prepared(settings)
    options = engine_options(settings, "policy", engine_parts(settings)["policy"], fork=fork)
    notes.at("starting the policy's engine")
    started = time.perf_counter()
    engine = KINDS[settings.policy.runs_as].policy(options, tokenizer, None)
    try:
        notes.found |= _start(options, engine, time.perf_counter() - started)
        notes.at("sampling")
        asyncio.run(_decode(engine, Words.of(settings, tokenizer), settings.max_sequences, notes))
    finally:
        engine.shutdown()


def reward_model(settings: Settings, notes: Notes) -> None:
    """Start the safety model's engine alone, and measure the score of a long answer behind a cached prompt."""
    fork, tokenizer = _prepared(settings)
    scoring = scorings(settings, inspect_reward_models(settings), tokenizer, settings.chat_template)["safety"]
    card = scoring.scorer.card
    options = engine_options(settings, "safety", engine_parts(settings)["safety"], fork=fork, card=card)
    notes.at("starting the safety model's engine")
    started = time.perf_counter()
    engine = KINDS[scoring.scorer.kind].reward_model(options, scoring.scorer, scoring.reader)
    try:
        notes.found |= _start(options, engine, time.perf_counter() - started)
        notes.at("scoring")
        asyncio.run(_score(engine, Words.of(settings, tokenizer), notes))
    finally:
        engine.shutdown()


def _prepared(settings: Settings) -> tuple[bool, Tokenizer]:
    """Prepare this process for engines; returns whether they may be forked, and the tokenizer."""
    fork = may_fork()
    prepare(offline=True, compiled=settings.compile)
    return fork, load_tokenizer(settings.policy.checkpoint, "policy")


def _start(options: EngineOptions, engine: ServedPolicy | ServedRewardModel, seconds: float) -> dict[str, Any]:
    return {
        "start_seconds": seconds,
        "start_method": os.environ.get(START_METHOD),
        "dtype": engine.dtype,
        "execution": options.execution,
        "context": engine.context,
    }


async def _decode(engine: ServedPolicy, words: Words, most: int, notes: Notes) -> None:
    """Time short and long answers: what a long one takes more is decode steps alone, without prefill and overhead."""
    prompt = words.prompt(min(LONGEST_PROMPT, engine.context // 4), seed=0)
    room = engine.context - len(prompt.token_ids)
    short = min(SHORT_TOKENS, room // 4)
    await _sampled(engine, prompt, words.sampling(short), 1)  # the first one takes longer, and caches the prompt
    alone = await _sampled(engine, prompt, words.sampling(short), 1)
    steps = min(LONG_TOKENS, room - short, max(short, int(DECODE_SECONDS * short / alone)))
    notes.found["decode"] = rows = []
    for candidates in (count for count in CANDIDATES if count <= most):
        await _sampled(engine, prompt, words.sampling(short), candidates)
        seconds = []
        for _ in range(REPEATS):
            less = await _sampled(engine, prompt, words.sampling(short), candidates)
            seconds.append(await _sampled(engine, prompt, words.sampling(short + steps), candidates) - less)
        context = len(prompt.token_ids) + short + steps // 2
        step = median(seconds) / steps
        rows.append({"candidates": candidates, "steps": steps, "context": context, "step_seconds": step})
        notes.write()


async def _sampled(engine: ServedPolicy, prompt: Prompt, sampling: Sampling, candidates: int) -> float:
    """Sample that many candidates at once; returns the seconds."""
    started = time.perf_counter()
    made = await asyncio.gather(*(engine.sample(prompt, sampling, index) for index in range(candidates)))
    seconds = time.perf_counter() - started
    require_lengths([candidate.tokens for candidate in made], sampling.max_tokens)
    return seconds


async def _score(engine: ServedRewardModel, words: Words, notes: Notes) -> None:
    prompt = words.prompt(min(LONGEST_PROMPT, engine.context // 4), seed=0)
    tokens = min(LONGEST_ANSWER, (engine.context - len(prompt.token_ids)) // 2)
    await engine.score(prompt, words.answer(1, seed=0))  # caches the prompt
    seconds = []
    for seed in range(REPEATS + 1):
        started = time.perf_counter()
        await engine.score(prompt, words.answer(tokens, seed))
        seconds.append(time.perf_counter() - started)
    notes.found["score"] = {
        "prompt_tokens": len(prompt.token_ids),
        "answer_tokens": tokens,
        "first_seconds": seconds[0],
        "seconds": median(seconds[1:]),
    }
