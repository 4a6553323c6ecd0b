"""The baselines that are asked over HTTP: plain vLLM, best-of-N built around it in two ways, and optillm's proxy.

All of them get the same prompts, K, limits and sampling options.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from winnow.loadtests.benchmarks.baselines.prompts import Rendered, Renderer
from winnow.loadtests.benchmarks.baselines.scorer import Scorer, best
from winnow.loadtests.types import Reply, ReplyKind, Request
from winnow.models.errors import CandidateFailed
from winnow.models.sampling import candidate_seed

POLICY = "policy"
"""The served name of the baselines' policy."""
ANSWER_SECONDS = 120.0
"""Longest wait for an answer; a server that gives none by then has failed."""


def new_client() -> httpx.AsyncClient:
    """Return a client that neither limits connections nor reads proxies from the environment."""
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=unlimited, trust_env=False)


class Baseline(ABC):
    """A `Target` whose failures become replies; subclasses implement `_answer`, whose reply needs no `done`."""

    __slots__ = ()

    async def send(self, request: Request) -> Reply:
        """Answer one request."""
        try:
            reply = await self._answer(request)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            kind: ReplyKind = "refused" if status in (429, 503) else "failed"
            return Reply(kind, time.perf_counter(), error=f"{status}: {error.response.text[:200]}")
        except (httpx.HTTPError, CandidateFailed, ValueError, KeyError, IndexError, TypeError) as error:
            return Reply("failed", time.perf_counter(), error=f"{type(error).__name__}: {error}")
        return replace(reply, done=time.perf_counter())

    @abstractmethod
    async def _answer(self, request: Request) -> Reply: ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """Candidates of one prompt as texts, their tokens in all, and the time at which the last of them had arrived."""

    texts: tuple[str, ...]
    tokens: int
    at: float

    def reply(self, winner: int, *, is_scored: bool = True) -> Reply:
        """Return the reply with candidate `winner`."""
        return Reply(
            "answered",
            done=0.0,
            text=self.texts[winner],
            candidates=len(self.texts),
            sampled_tokens=self.tokens,
            score_tail=time.perf_counter() - self.at if is_scored else None,
        )


@dataclass(frozen=True, slots=True)
class Completions:
    """vLLM's `/v1/completions`, which takes a prompt's token ids."""

    http: httpx.AsyncClient
    url: str

    async def sample(self, prompt: Rendered, request: Request, n: int, seed: int | None) -> Sampled:
        """Sample `n` candidates with one request."""
        body = {"model": POLICY, "prompt": prompt.ids, "n": n, "max_tokens": request.max_tokens, "seed": seed}
        answer = await _post(self.http, f"{self.url}/v1/completions", {**body, **request.options})
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        # vLLM decodes behind the prompt, which leaves the tokenizer's dummy space in.
        texts = tuple(choice["text"].removeprefix(prompt.answer_prefix) for choice in choices)
        return Sampled(texts, answer["usage"]["completion_tokens"], time.perf_counter())


@dataclass(frozen=True, slots=True)
class BareVllm(Baseline):
    """Plain vLLM with `n=K`, nothing scored: the lower bound."""

    render: Renderer
    policy: Completions
    name: str = "vllm"

    async def _answer(self, request: Request) -> Reply:
        sampled = await self.policy.sample(self.render(request), request, request.candidates, request.seed)
        return sampled.reply(0, is_scored=False)


@dataclass(frozen=True, slots=True)
class GenerateThenClassify(Baseline):
    """Plain vLLM with `n=K`, then both reward models at once with all K texts each: a competent user's own best-of-N.

    `is_seeded` False sends no seeds: on CPU a seed kills an engine that cuts prefills in parts, as vLLM's
    does by default.
    """

    render: Renderer
    policy: Completions
    scorer: Scorer
    name: str = "vllm+classify"
    is_seeded: bool = True

    async def _answer(self, request: Request) -> Reply:
        prompt = self.render(request)
        seed = request.seed if self.is_seeded else None
        sampled = await self.policy.sample(prompt, request, request.candidates, seed)
        return sampled.reply(best(await self.scorer(prompt, sampled.texts)))


@dataclass(frozen=True, slots=True)
class SequentialThenScore(Baseline):
    """K requests one after another, then the scores, as simple scripts and libraries do. Its seeds are Winnow's."""

    render: Renderer
    policy: Completions
    scorer: Scorer
    name: str = "one-by-one"

    async def _answer(self, request: Request) -> Reply:
        prompt = self.render(request)
        parts = []
        for index in range(request.candidates):
            seed = None if request.seed is None else candidate_seed(request.seed, index)
            parts.append(await self.policy.sample(prompt, request, 1, seed))
        sampled = _joined(parts)
        return sampled.reply(best(await self.scorer(prompt, sampled.texts)))


def _joined(parts: Sequence[Sampled]) -> Sampled:
    texts = tuple(text for part in parts for text in part.texts)
    return Sampled(texts, sum(part.tokens for part in parts), parts[-1].at)


@dataclass(frozen=True, slots=True)
class OptiLlm(Baseline):
    """optillm's proxy before the policy's server: it samples K, and the policy itself rates each, one after another.

    The proxy passes on neither seed nor `logit_bias`, so its answers always have natural lengths. It fixes K
    when it starts: `urls` has one proxy for each K.
    """

    http: httpx.AsyncClient
    urls: dict[int, str]
    name: str = "optillm"

    async def _answer(self, request: Request) -> Reply:
        body = {"model": POLICY, "messages": request.messages, "max_tokens": request.max_tokens}
        answer = await _post(self.http, f"{self.urls[request.candidates]}/v1/chat/completions", body)
        text = str(answer["choices"][0]["message"]["content"])
        return Reply("answered", 0.0, text=text, candidates=request.candidates)


async def _post(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(url, json=body)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer
