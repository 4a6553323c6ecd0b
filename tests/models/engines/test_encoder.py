"""Encoders as they are served, against transformers' plain forward pass, on tiny random checkpoints."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.models.engines import tiny_encoders
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import load_plain_tokenizer
from winnow.models.engines.encoder import EncoderRewardModel, start_reward_model
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.scorers import Scorer, inspect_scorer
from winnow.models.engines.transformers import reference_of
from winnow.models.errors import CandidateFailed, EngineDead
from winnow.models.types import Message, Prompt

QUESTION = "What is the capital of France?"
PROMPT = Prompt((), (Message("user", QUESTION),))
ANSWERS = ("Paris.", "I cannot help with that. " * 6, "", " Hello!\n\n", "x [SEP] </s> no")
PLAIN = ("Paris.", "I cannot help with that. " * 6, "x", "Hello! 0123")
"""Answers in which there is no name of a special token, so that the author's tokenizer gives the same ids."""


def reader_of(scorer: Scorer) -> EncoderInput:
    return EncoderInput(scorer.card, load_plain_tokenizer(str(scorer.folder), "reward model"))


@contextmanager
def served(folder: Path, dtype: str = "float32", **options: Any) -> Iterator[EncoderRewardModel]:
    scorer = inspect_scorer(str(folder))
    assert scorer.encoder
    chosen = EngineOptions("safety", str(folder), dtype, None, None, None, 64, "eager", "auto", False, False)
    model = start_reward_model(chosen, scorer.encoder, reader_of(scorer))
    try:
        yield model
    finally:
        model.shutdown()


async def together(model: EncoderRewardModel, prompts: list[Prompt], answers: list[str]) -> list[float]:
    return await asyncio.gather(*(model.score(*pair) for pair in zip(prompts, answers, strict=True)))


@torch.inference_mode()
def authors(folder: Path, *texts: str) -> list[float]:
    """The logits of the author's own code: tokenizer and model as transformers loads them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    given = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")
    if getattr(model.config, "type_vocab_size", 0) < 2:
        given.pop("token_type_ids", None)
    return [float(logit) for logit in model(**given).logits[0]]


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_a_served_score_is_the_authors_alone_and_padded_in_a_batch(tmp_path: Path, family: str) -> None:
    folder = tiny_encoders.encoder(tmp_path / family, family)
    expected = [authors(folder, QUESTION, answer)[0] for answer in PLAIN]
    assert len({round(score, 4) for score in expected}) == len(PLAIN)
    with served(folder) as model:
        alone = [asyncio.run(model.score(PROMPT, answer)) for answer in PLAIN]
        batch = asyncio.run(together(model, [PROMPT] * 20, list(PLAIN) * 5))
    assert alone == pytest.approx(expected, abs=1e-4)
    assert batch == pytest.approx(expected * 5, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_plain_pass_in_either_precision(tmp_path: Path, family: str, dtype: Any) -> None:
    folder = tiny_encoders.encoder(tmp_path / family, family)
    scorer = inspect_scorer(str(folder))
    with closing(reference_of(scorer, reader_of(scorer), dtype, "cpu")) as reference:
        expected = [asyncio.run(reference.score(PROMPT, answer)) for answer in ANSWERS]
    with served(folder, dtype) as model:
        assert model.dtype == dtype
        scores = asyncio.run(together(model, [PROMPT] * 5, list(ANSWERS)))
    assert scores == pytest.approx(expected, abs=1e-4 if dtype == "float32" else 0.1)


def test_close_answers_do_not_tie_in_half_precision(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "bert", "bert")
    answers = [f"Paris {number}" for number in range(64)]
    different = []
    for dtype in ("float32", "bfloat16"):
        with served(folder, dtype) as model:
            different.append(len(set(asyncio.run(together(model, [PROMPT] * 64, answers)))))
    assert different[1] > different[0] - 4


def test_the_order_is_kept_whatever_the_lengths(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "roberta", "roberta")
    answers = [f"{number} is a number. " * (number % 17) for number in range(100)]
    with served(folder) as model:
        alone = [asyncio.run(model.score(PROMPT, answer)) for answer in answers]
        assert asyncio.run(together(model, [PROMPT] * 100, answers)) == pytest.approx(alone, abs=1e-4)
        assert model.unfinished == 0


def test_six_labels_make_minus_the_largest_logit(tmp_path: Path) -> None:
    """Never a softmax: each label is a question of its own."""
    folder = tiny_encoders.encoder(tmp_path / "toxic-bert", "bert", tiny_encoders.TOXICITIES)
    with served(folder) as model:
        score = asyncio.run(model.score(PROMPT, "Go away."))
    assert score == pytest.approx(-max(authors(folder, "Go away.")), abs=1e-4)


def test_two_labels_make_the_better_minus_the_worse(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "roberta_toxicity_classifier", "roberta", ("neutral", "toxic"))
    neutral, toxic = authors(folder, "Go away.")
    with served(folder) as model:
        assert asyncio.run(model.score(PROMPT, "Go away.")) == pytest.approx(neutral - toxic, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_more_tokens_than_the_context_are_no_score(tmp_path: Path, family: str) -> None:
    """DeBERTa reads 600 tokens without a word, and RoBERTa's table has two positions that no text may use."""
    folder = tiny_encoders.encoder(tmp_path / family, family)
    with served(folder) as model:
        reader = reader_of(inspect_scorer(str(folder)))
        room = 512 - len(reader.token_ids(PROMPT, ""))
        texts = (f"{'7 ' * size}{tail}" for size in range(200, 512) for tail in ("", "7", "a"))
        answer = next(text for text in texts if len(reader.token_ids(PROMPT, text)) in (511, 512))
        assert room > 480
        assert math.isfinite(asyncio.run(model.score(PROMPT, answer)))
        for text in (f"{answer} 7 7", "7 " * 600):
            with pytest.raises(CandidateFailed, match="does not fit the safety model's context of 512 tokens"):
                asyncio.run(model.score(PROMPT, text))
        assert model.unfinished == 0


def test_a_broken_batch_fails_its_own_requests_and_the_next_one_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_encoders.encoder(tmp_path / "bert", "bert")
    with served(folder) as model:
        with monkeypatch.context() as broken:
            broken.setattr(type(model._model), "forward", lambda *_, **__: 1 / 0)
            with pytest.raises(CandidateFailed, match="the safety engine failed on a request: ZeroDivisionError"):
                asyncio.run(model.score(PROMPT, "Paris."))
        assert math.isfinite(asyncio.run(model.score(PROMPT, "Paris.")))
        assert model.is_alive


def test_a_score_that_is_not_a_number_is_passed_on(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "toxic-bert", "bert", tiny_encoders.TOXICITIES)
    with served(folder) as model:
        assert model._model
        model._model.classifier.bias.data[3] = math.nan
        assert math.isnan(asyncio.run(model.score(PROMPT, "Paris.")))


def test_after_the_end_there_is_no_score(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "bert", "bert")
    with served(folder) as model:
        assert model.is_alive
    assert not model.is_alive
    with pytest.raises(EngineDead, match="the safety engine is gone"):
        asyncio.run(model.score(PROMPT, "Paris."))


def test_random_weights_need_only_a_config(tmp_path: Path) -> None:
    folder = tiny_encoders.encoder(tmp_path / "bert", "bert")
    (folder / "model.safetensors").unlink()
    scorer = inspect_scorer(str(folder), needs_weights=False)
    assert scorer.encoder
    options = EngineOptions("safety", str(folder), "float32", None, None, None, 64, "eager", "dummy", False, False)
    model = start_reward_model(options, scorer.encoder, reader_of(scorer))
    try:
        assert math.isfinite(asyncio.run(model.score(PROMPT, "Paris.")))
    finally:
        model.shutdown()
