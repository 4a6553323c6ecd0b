"""The sampling parameters that vLLM gets for a candidate, and the reading of its output while it samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.types import Prompt, TokenLogprob


class CheckpointWatcher:
    """Calls a handle's `at_checkpoint` at each checkpoint its candidate passes; `text_of` decodes the tokens."""

    def __init__(self, handle: CandidateHandle, text_of: Callable[[Sequence[int]], str]) -> None:
        self._handle = handle
        self._text_of = text_of
        self._passed = 0

    def __call__(self, output: RequestOutput) -> None:
        """Read one more output; a finished candidate passes no checkpoint."""
        checkpoints, at_checkpoint = self._handle.checkpoints, self._handle.at_checkpoint
        ids = output.outputs[0].token_ids
        while not output.finished and self._passed < len(checkpoints) and len(ids) >= checkpoints[self._passed]:
            self._passed += 1
            if at_checkpoint:
                at_checkpoint(self._passed - 1, self._text_of(ids[: checkpoints[self._passed - 1]]))


def token_logprob(token: int, place: Mapping[int, Logprob], alternatives: int) -> TokenLogprob:
    """Return the sampled token and the likeliest `alternatives`; vLLM lists the sampled one among them."""
    ranked = sorted((value.rank, other, value.logprob) for other, value in place.items())
    return TokenLogprob(
        token, place[token].logprob, tuple((other, logprob) for _, other, logprob in ranked[:alternatives])
    )


def end_ids(generation_config: Mapping[str, Any], eos_id: int) -> frozenset[int]:
    """Return the ids that end an answer: EOS, and those of generation_config.json, at which vLLM stops by itself."""
    given = generation_config.get("eos_token_id")
    return frozenset((eos_id, *([given] if isinstance(given, int) else given or ())))


def _stops(prompt: Prompt, sampling: Sampling) -> list[str]:
    """Return the stop strings at which vLLM ends a candidate.

    One that begins with the answer prefix is not among them: vLLM would find it before the answer.
    """
    prefix = prompt.answer_prefix
    return [stop for stop in sampling.stop if not (prefix and stop.startswith(prefix))]


def sampling_parameters(prompt: Prompt, sampling: Sampling, index: int) -> SamplingParams:
    """Return vLLM's parameters of candidate `index`, whose seed is derived from the request's."""
    stops = _stops(prompt, sampling)
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        ignore_eos=sampling.ignore_eos,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=stops,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias or None,
        seed=None if sampling.seed is None else candidate_seed(sampling.seed, index),
        logprobs=sampling.alternatives,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # Incremental detokenisation costs more than the engine's own front end; only a stop string needs it.
        detokenize=bool(stops),
    )
