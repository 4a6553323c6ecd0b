"""Sampling parameters, and the seeds that candidates and offline prompts derive from a caller's one seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of every candidate of one prompt; ranges as in the OpenAI API and vLLM.

    `max_tokens` counts sampled tokens, the closing EOS included; before `min_tokens` of them neither EOS nor a stop
    string ends an answer. With `ignore_eos` only a stop string ends it before `max_tokens`. `top_k` 0 and `min_p` 0
    switch those filters off. `seed` None samples unseeded; otherwise candidate k uses `candidate_seed(seed, k)`.
    `alternatives` requests the tokens' log-probabilities, each with that many alternatives, 0 to 20; None requests
    none.
    """

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    alternatives: int | None = None


def derived_seed(*parts: int) -> int:
    """Return a seed in [0, 2**63) derived from `parts`.

    Hashed rather than added, so that neighbouring seeds share nothing.
    """
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def candidate_seed(seed: int, index: int) -> int:
    """Return the seed of candidate `index`, in [0, 2**63), derived from the request's `seed`."""
    return derived_seed(seed, index)
