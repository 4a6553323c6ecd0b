"""The sampling parameters that vLLM gets for a candidate, and the reading of its log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping

from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.sampling_params import RequestOutputKind

from winnow.models.engines.sampled import engine_stops
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.types import Prompt, TokenLogprob


def token_logprob(token: int, place: Mapping[int, Logprob], alternatives: int) -> TokenLogprob:
    """Return the sampled token and the likeliest `alternatives`; vLLM lists the sampled one among them."""
    ranked = sorted((value.rank, other, value.logprob) for other, value in place.items())
    return TokenLogprob(
        token, place[token].logprob, tuple((other, logprob) for _, other, logprob in ranked[:alternatives])
    )


def sampling_parameters(prompt: Prompt, sampling: Sampling, index: int) -> SamplingParams:
    """Return vLLM's parameters of candidate `index`, whose seed is derived from the request's."""
    stops = engine_stops(prompt, sampling)
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
