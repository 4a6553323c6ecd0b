"""The output of a policy's engine as a candidate: cut at its end and its stops, spelled, read at checkpoints.

The same for an engine here and for one on another server: both return token ids, and neither's text is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, FinishReason, Prompt, TokenLogprob


@dataclass(frozen=True, slots=True)
class Sampled:
    """The output of an engine: all ids, the one that ended the answer included, and their log-probabilities, if any."""

    ids: Sequence[int]
    finish_reason: FinishReason
    seconds: float
    logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """Makes candidates of sampled ids. `end_ids` end an answer, and need not be control ids."""

    tokenizer: Tokenizer
    end_ids: frozenset[int]

    def candidate(self, prompt: Prompt, sampling: Sampling, index: int, sampled: Sampled) -> Candidate:
        """Return candidate `index` of `prompt`."""
        ids = self._without_end(sampled)
        text = self._text(prompt, ids)
        answer = self._cut(text, prompt, sampling, ids)
        logprobs = None
        if sampled.logprobs is not None:
            logprobs = tuple(place for place in sampled.logprobs if place.token_id not in self.end_ids)
        return Candidate(
            index=index,
            text=answer,
            finish_reason="stop" if len(answer) < len(text) else sampled.finish_reason,
            tokens=len(sampled.ids),
            seconds=sampled.seconds,
            logprobs=logprobs,
        )

    def unfinished_text(self, prompt: Prompt, sampling: Sampling, ids: Sequence[int]) -> str:
        """Return the text of an answer that has got as far as `ids`."""
        return self._cut(self._text(prompt, ids), prompt, sampling, ids)

    def _without_end(self, sampled: Sampled) -> Sequence[int]:
        ids = sampled.ids
        return ids[:-1] if sampled.finish_reason == "stop" and ids and ids[-1] in self.end_ids else ids

    def _text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """Return the text of `ids` sampled after `prompt`, without the answer prefix."""
        return self.tokenizer.decode_continuation(ids).removeprefix(prompt.answer_prefix)

    def _cut(self, text: str, prompt: Prompt, sampling: Sampling, ids: Sequence[int]) -> str:
        """Return an answer's text, which `ids` spell, up to the first stop string or tag of the template in it.

        All are looked for here, in one spelling of the text, whether or not vLLM has ended the candidate for one. As
        there, a stop string that is complete within the first `min_tokens` tokens does not count.
        """
        first = len(self._text(prompt, ids[: sampling.min_tokens]))
        stops = (text.find(stop, max(0, first + 1 - len(stop))) for stop in sampling.stop)
        return text[: min((at for at in (*stops, *map(text.find, prompt.tags)) if at >= 0), default=len(text))]


class CheckpointWatcher:
    """Calls a handle's `at_checkpoint` at each checkpoint its candidate passes; `text_of` decodes the tokens."""

    def __init__(self, handle: CandidateHandle, text_of: Callable[[Sequence[int]], str]) -> None:
        self._handle = handle
        self._text_of = text_of
        self.passed = 0
        """Checkpoints that have been passed."""

    def __call__(self, ids: Sequence[int], *, is_finished: bool) -> None:
        """Read what has been sampled so far; a finished candidate passes no checkpoint."""
        checkpoints, at_checkpoint = self._handle.checkpoints, self._handle.at_checkpoint
        while not is_finished and self.passed < len(checkpoints) and len(ids) >= checkpoints[self.passed]:
            self.passed += 1
            if at_checkpoint:
                at_checkpoint(self.passed - 1, self._text_of(ids[: checkpoints[self.passed - 1]]))


def end_ids(generation_config: Mapping[str, Any], eos_id: int) -> frozenset[int]:
    """Return the ids that end an answer: EOS, and those of generation_config.json, at which vLLM stops by itself."""
    given = generation_config.get("eos_token_id")
    return frozenset((eos_id, *([given] if isinstance(given, int) else given or ())))


def engine_stops(prompt: Prompt, sampling: Sampling) -> list[str]:
    """Return the stop strings at which vLLM ends a candidate.

    One that begins with the answer prefix is not among them: vLLM would find it before the answer.
    """
    prefix = prompt.answer_prefix
    return [stop for stop in sampling.stop if not (prefix and stop.startswith(prefix))]
