"""A program for `test_heads_served`: starts an engine on each checkpoint, all forked, and prints their scores as JSON.

Its argument is JSON, {name: [folder, dtype]}. One import of vLLM serves all; so a head takes two seconds, not ten.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import load_plain_tokenizer
from winnow.models.engines.environment import prepare
from winnow.models.engines.reward_text import CardInput, resolved
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.types import Message, Prompt

if TYPE_CHECKING:
    from winnow.models.engines.vllm_reward_model import VllmRewardModel

PROMPT = Prompt((), (Message("user", "What is the capital of France? <|eot|> <|eot_id|> x"),))
LONG = Prompt(
    (),
    (
        Message("user", "Hello, how can I help you today? " * 6),
        Message("assistant", "I cannot help with that."),
        Message("user", "Why not? " * 8),
    ),
)
ANSWERS = ("Paris.", "I cannot help with that. " * 5, "", " Hello!\n\n", "<|eot|><|eot_id|> no 🙂")
GUARDS = ("llama-guard", "shield-gemma2")
CLOSE = tuple(f"The capital of France is Paris. {number}" for number in range(64))
"""Answers whose scores are close."""


async def scored(engine: VllmRewardModel) -> dict[str, Any]:
    """Score the answers to a long prompt all at once, and those to a short one in turn, twice, and in a batch."""
    requests = 0
    encode = engine.llm.encode

    def counted(*given: Any) -> Any:
        nonlocal requests
        requests += 1
        return encode(*given)

    engine.llm.encode = counted
    fresh = await asyncio.gather(*(engine.score(LONG, answer) for answer in CLOSE[:16]))
    asked = requests
    alone = [await engine.score(PROMPT, answer) for answer in ANSWERS]
    return {
        "requests": asked,
        "fresh": fresh,
        "alone": alone,
        "hit": [await engine.score(PROMPT, answer) for answer in ANSWERS],
        "together": await asyncio.gather(*(engine.score(PROMPT, answer) for answer in ANSWERS * 4)),
        "close": await asyncio.gather(*(engine.score(PROMPT, answer) for answer in CLOSE)),
        "mass": await engine.label_mass(PROMPT, ANSWERS[0]),
        "verdict": await engine.verdict(PROMPT) if engine.name in GUARDS else None,
        "unfinished": engine.unfinished,
    }


def main(folders: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Return what `scored` does for each folder, by name."""
    prepare(offline=True, compiled=False)
    from winnow.models.engines.vllm import start_reward_model

    engines = {}
    try:
        for name, (folder, dtype) in folders.items():
            scorer = inspect_scorer(folder)
            reader = CardInput(scorer.card, load_plain_tokenizer(folder, "reward model"), scorer.pad_id)
            options = EngineOptions(name, folder, dtype, 512, 2**25, None, 64, "eager", "auto", False, True)
            engines[name] = start_reward_model(options, reader, resolved(scorer.head, scorer.card, reader))

        async def all_scored() -> dict[str, dict[str, Any]]:
            return {name: await scored(engine) for name, engine in engines.items()}

        return asyncio.run(all_scored())
    finally:
        for engine in engines.values():
            engine.shutdown()


if __name__ == "__main__":
    print("scores " + json.dumps(main(json.loads(sys.argv[1]))))
