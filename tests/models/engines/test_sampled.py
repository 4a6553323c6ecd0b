"""Candidates of sampled ids, without an engine: ends, stops, tags, checkpoints."""

from __future__ import annotations

import pytest

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.sampled import AnswerReader, CheckpointWatcher, Sampled, end_ids, engine_stops
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import FinishReason, Message, Prompt, TokenLogprob


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Prompt:
    return Llama2Template().render([Message("user", "Hello")], tokenizer)


@pytest.mark.parametrize(
    ("ended", "finish_reason", "stop", "text", "reason"),
    [
        (True, "stop", (), "Paris. It is.", "stop"),
        (False, "length", (), "Paris. It is.", "length"),
        (False, "length", ("It",), "Paris. ", "stop"),
        (True, "stop", ("never",), "Paris. It is.", "stop"),
    ],
)
def test_a_candidate_has_the_text_up_to_its_end(
    tokenizer: Tokenizer, prompt: Prompt, ended: bool, finish_reason: FinishReason, stop: tuple[str, ...], text: str,
    reason: str,
) -> None:  # fmt: skip
    ids = tokenizer.encode_continuation(" Paris. It is.") + [tokenizer.eos_id] * ended
    reader = AnswerReader(tokenizer, end_ids({}, tokenizer.eos_id))
    logprobs = [TokenLogprob(token, -1.0) for token in ids]
    found = reader.candidate(prompt, Sampling(99, stop=stop), 3, Sampled(ids, finish_reason, 0.5, logprobs))
    assert (found.index, found.text, found.finish_reason, found.tokens) == (3, text, reason, len(ids))
    assert found.logprobs == tuple(logprobs[: len(ids) - ended])


def test_checkpoints_are_passed_once_and_not_by_a_finished_candidate(tokenizer: Tokenizer) -> None:
    seen: list[tuple[int, str]] = []
    watch = CheckpointWatcher(CandidateHandle((1, 3, 5), lambda *at: seen.append(at)), lambda ids: str(len(ids)))
    for length, is_finished in ((2, False), (2, False), (4, False), (5, True)):
        watch([7] * length, is_finished=is_finished)
    assert seen == [(0, "1"), (1, "3")]
    assert watch.passed == 2


def test_a_stop_string_that_begins_as_the_answer_prefix_is_not_the_engines(prompt: Prompt) -> None:
    assert engine_stops(prompt, Sampling(9, stop=(" a", "b"))) == ["b"]
    assert end_ids({"eos_token_id": [5, 6]}, 2) == {2, 5, 6}
    assert end_ids({"eos_token_id": 5}, 2) == {2, 5}
