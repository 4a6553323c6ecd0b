"""The systems that are asked over HTTP: plain vLLM, the ways to build best-of-N around it, optillm's proxy, and Winnow.

All of them get the same prompts, K, limits and sampling options; whatever goes wrong becomes a `Reply` of kind `failed`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from winnow.loadtests.benchmarks.baselines.prompts import Rendered, Renderer
from winnow.loadtests.benchmarks.baselines.scorer import Scorer
from winnow.loadtests.types import Ask, Reply, ReplyKind
from winnow.models.sampling import candidate_seed

POLICY = "policy"
"""The name that the baselines' policy is served under."""
ANSWER_SECONDS = 120.0
"""Longest wait for an answer; a server that gives none by then has failed."""


def new_client() -> httpx.AsyncClient:
    """A client that neither limits connections nor reads proxies from the environment."""
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=unlimited, trust_env=False)


async def replied(answer: Callable[[], Awaitable[Reply]]) -> Reply:
    """What `answer` returns, stamped when it is done; its failures as a reply."""
    try:
        reply = await answer()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        kind: ReplyKind = "refused" if status in (429, 503) else "failed"
        return Reply(kind, time.perf_counter(), error=f"{status}: {error.response.text[:200]}")
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        return Reply("failed", time.perf_counter(), error=f"{type(error).__name__}: {error}")
    return replace(reply, done=time.perf_counter())


@dataclass(frozen=True, slots=True)
class Sampled:
    """Candidates of one prompt as texts, the tokens they took, and when the last of them was there."""

    texts: tuple[str, ...]
    tokens: int
    at: float

    def reply(self, winner: int, *, is_scored: bool = True) -> Reply:
        """The reply that returns candidate `winner`."""
        return Reply(
            "answered",
            done=0.0,
            text=self.texts[winner].strip(),
            candidates=len(self.texts),
            sampled_tokens=self.tokens,
            score_tail=time.perf_counter() - self.at if is_scored else None,
        )


@dataclass(frozen=True, slots=True)
class Completions:
    """vLLM's `/v1/completions`, given a prompt's token ids."""

    http: httpx.AsyncClient
    url: str

    async def sample(self, prompt: Rendered, ask: Ask, n: int, seed: int | None) -> Sampled:
        """Sample `n` candidates with one request."""
        body = {
            "model": POLICY,
            "prompt": prompt.ids,
            "n": n,
            "max_tokens": ask.max_tokens,
            "seed": seed,
            **ask.options,
        }
        answer = await _post(self.http, f"{self.url}/v1/completions", body)
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        # vLLM decodes behind the prompt, where the tokenizer's dummy space is left in.
        texts = tuple(choice["text"].removeprefix(" ") for choice in choices)
        return Sampled(texts, answer["usage"]["completion_tokens"], time.perf_counter())


@dataclass(frozen=True, slots=True)
class BareVllm:
    """Plain vLLM serving with `n=K`, nothing scored: the floor."""

    render: Renderer
    policy: Completions
    name: str = "vllm"

    async def ask(self, ask: Ask) -> Reply:
        """Answer with the first of K candidates."""
        return await replied(lambda: self._answer(ask))

    async def _answer(self, ask: Ask) -> Reply:
        sampled = await self.policy.sample(self.render(ask), ask, ask.candidates, ask.seed)
        return sampled.reply(0, is_scored=False)


@dataclass(frozen=True, slots=True)
class GenerateThenClassify:
    """Plain vLLM with `n=K`, then both reward models at once with all K texts each: what a competent user builds.

    Without seeds if not `is_seeded`: an engine that cuts prefills in parts, as vLLM's does by default, dies of one on CPU.
    """

    render: Renderer
    policy: Completions
    scorer: Scorer
    name: str = "vllm+classify"
    is_seeded: bool = True

    async def ask(self, ask: Ask) -> Reply:
        """Answer with the best of K."""
        return await replied(lambda: self._answer(ask))

    async def _answer(self, ask: Ask) -> Reply:
        prompt = self.render(ask)
        sampled = await self.policy.sample(prompt, ask, ask.candidates, ask.seed if self.is_seeded else None)
        return sampled.reply((await self.scorer(prompt, sampled.texts)).winner)


@dataclass(frozen=True, slots=True)
class SequentialThenScore:
    """K requests one after another, then the scores: what simple scripts and libraries do. Its seeds are Winnow's."""

    render: Renderer
    policy: Completions
    scorer: Scorer
    name: str = "one-by-one"

    async def ask(self, ask: Ask) -> Reply:
        """Answer with the best of K."""
        return await replied(lambda: self._answer(ask))

    async def _answer(self, ask: Ask) -> Reply:
        prompt = self.render(ask)
        parts = []
        for index in range(ask.candidates):
            seed = None if ask.seed is None else candidate_seed(ask.seed, index)
            parts.append(await self.policy.sample(prompt, ask, 1, seed))
        sampled = _joined(parts)
        return sampled.reply((await self.scorer(prompt, sampled.texts)).winner)


def _joined(parts: Sequence[Sampled]) -> Sampled:
    texts = tuple(text for part in parts for text in part.texts)
    return Sampled(texts, sum(part.tokens for part in parts), parts[-1].at)


@dataclass(frozen=True, slots=True)
class OptiLlm:
    """optillm's proxy in front of the policy's server: it samples K and lets the policy rate each, one after another.

    The proxy hands neither seed nor `logit_bias` on, so its answers have natural lengths whatever is asked. K is fixed when it is
    started: `urls` has one proxy for each.
    """

    http: httpx.AsyncClient
    urls: dict[int, str]
    name: str = "optillm"

    async def ask(self, ask: Ask) -> Reply:
        """Answer with what the proxy returns."""
        return await replied(lambda: self._answer(ask))

    async def _answer(self, ask: Ask) -> Reply:
        body = {"model": POLICY, "messages": ask.messages, "max_tokens": ask.max_tokens}
        answer = await _post(self.http, f"{self.urls[ask.candidates]}/v1/chat/completions", body)
        text = str(answer["choices"][0]["message"]["content"]).strip()
        return Reply("answered", 0.0, text=text, candidates=ask.candidates)


@dataclass(frozen=True, slots=True)
class WinnowServer:
    """`winnow serve`, asked over its chat endpoint."""

    http: httpx.AsyncClient
    url: str
    name: str = "winnow"

    async def ask(self, ask: Ask) -> Reply:
        """Answer with the best of K."""
        return await replied(lambda: self._answer(ask))

    async def _answer(self, ask: Ask) -> Reply:
        answer = await self.post(ask)
        told = answer["best_of_n"]
        return Reply(
            "answered",
            0.0,
            text=answer["choices"][0]["message"]["content"].strip(),
            candidates=told["finished"],
            sampled_tokens=answer["usage"]["completion_tokens"],
            winner_tokens=told["winner_tokens"],
            score_tail=told["timings_ms"]["score_tail"] / 1000,
            details={"timings_ms": told["timings_ms"]},
        )

    async def post(self, ask: Ask, **extra: Any) -> dict[str, Any]:
        """The server's own answer; `extra` are further fields of `best_of_n`."""
        body = {
            "model": "winnow-demo",
            "messages": ask.messages,
            "max_tokens": ask.max_tokens,
            "seed": ask.seed,
            **ask.options,
            "best_of_n": {"candidates": ask.candidates, **extra},
        }
        return await _post(self.http, f"{self.url}/v1/chat/completions", body)


async def _post(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(url, json=body)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer
