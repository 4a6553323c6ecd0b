"""Heads of every kind as vLLM serves them, against a forward pass of transformers, on tiny random checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.models.engines import tiny
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import load_plain_tokenizer
from winnow.models.engines.environment import prepare
from winnow.models.engines.reward_text import CardInput, resolved
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.types import Message, Prompt

pytestmark = pytest.mark.engine

PROMPT = Prompt((), (Message("user", "What is the capital of France? <|eot|> x"),))
ANSWERS = ("Paris.", "I cannot help with that. " * 5, "", " Hello!\n\n", "<|eot|> no 🙂")
GUARD = 'adapter = "labels"\nlabels = ["safe", "unsafe"]\ntemplate = "tokenizer"\nend = ["ĊĊ"]\n'

Forward = Callable[[list[int]], float]


def classifier(folder: Path) -> Forward:
    """transformers' own classifier of a folder."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda ids: float(model(torch.tensor([ids])).logits[0, 0])


def qwen3(folder: Path) -> Forward:
    return classifier(tiny.checkpoint(folder, "qwen3", tiny.byte_level(bos=False)))


def beaver(folder: Path) -> Forward:
    """safe-rlhf's score: the plain one, plus the bias."""
    plain = classifier(tiny.checkpoint(folder.with_name("plain"), "llama", tiny.byte_level(None)))
    tiny.beaver(folder, tiny.byte_level(None), bias=7.0)
    return lambda ids: plain(ids) + 7.0


def guard(kind: str) -> Callable[[Path], Forward]:
    """The difference of two logits at the last token."""

    def build(folder: Path) -> Forward:
        tokenizer = tiny.byte_level()
        tiny.checkpoint(folder, kind, tokenizer, causal=True)
        (folder / "winnow-card.toml").write_text(GUARD, encoding="utf-8")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        safe, unsafe = tokenizer.convert_tokens_to_ids(["safe", "unsafe"])

        def forward(ids: list[int]) -> float:
            logits = model(torch.tensor([ids])).logits[0, -1]
            return float(logits[safe] - logits[unsafe])

        return forward

    return build


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("beaver-7b-v1.0-reward", beaver),
        ("qwen3-rm", qwen3),
        ("llama-guard", guard("llama")),
        ("shield-gemma2", guard("gemma2")),
    ],
)
@torch.inference_mode()
def test_a_served_score_is_the_forward_pass_alone_and_in_a_batch(
    tmp_path: Path, name: str, build: Callable[[Path], Forward]
) -> None:
    """The engine is spawned, so that the loader of heads has to reach a process that inherits nothing."""
    prepare(offline=True, compiled=False)
    from winnow.models.engines.vllm import start_reward_model

    folder = tmp_path / name
    forward = build(folder)
    scorer = inspect_scorer(str(folder))
    reader = CardInput(scorer.card, load_plain_tokenizer(str(folder), "reward model"), scorer.pad_id)
    head = resolved(scorer.head, scorer.card, reader)
    expected = [forward(reader.token_ids(PROMPT, answer)) for answer in ANSWERS]
    reference = ReferenceRewardModel(str(folder), reader, head=head)
    assert [asyncio.run(reference.score(PROMPT, answer)) for answer in ANSWERS] == pytest.approx(expected, abs=1e-4)
    options = EngineOptions(name, str(folder), "float32", 256, 2**25, None, 64, "eager", "auto", False, False)
    engine = start_reward_model(options, reader, head)

    async def score() -> tuple[list[float], list[float], float | None]:
        if len(head.rows) == 2:
            assert await engine.verdict(PROMPT) == pytest.approx(forward(reader.prompt_ids(PROMPT, 256)), abs=1e-3)
        alone = [await engine.score(PROMPT, answer) for answer in ANSWERS]
        together = await asyncio.gather(*(engine.score(PROMPT, answer) for answer in ANSWERS * 4))
        return alone, together, await engine.label_mass(PROMPT, ANSWERS[0])

    try:
        alone, together, mass = asyncio.run(score())
    finally:
        engine.shutdown()
    assert alone == pytest.approx(expected, abs=1e-3)
    assert together == pytest.approx(alone * 4, abs=1e-5)
    assert (mass is not None) == bool(head.rows)
    assert mass is None or 0 < mass < 1
