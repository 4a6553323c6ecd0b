"""its_hub's `BestOfN` behind lines of JSON (`winnow.loadtests.benchmarks.baselines.subprocess_client`); run by the peers' own interpreter.

A script that imports nothing of Winnow. The algorithm is its_hub's; the language model and the outcome reward model, which it leaves to its
users, ask the same vLLM servers with the same bodies as the other baselines: `n=1` requests with Winnow's seeds, and `/classify`.
Usage: its_hub_driver.py POLICY_URL SAFETY_URL HELPFULNESS_URL
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from typing import Any

import httpx
from its_hub.api import AbstractLanguageModel, AbstractOutcomeRewardModel
from its_hub.core.algorithms.bon import BestOfN


class Policy(AbstractLanguageModel):  # type: ignore[misc]
    """Samples one candidate a call behind one prompt's token ids."""

    def __init__(self, http: httpx.AsyncClient, url: str, order: dict[str, Any]) -> None:
        self.http, self.url, self.order = http, url, order
        self.calls = self.tokens = 0

    async def agenerate_single(self, messages: Any, stop: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Sample the next candidate."""
        index, order = self.calls, self.order
        self.calls += 1
        body = {"model": "policy", "prompt": order["ids"], "max_tokens": order["max_tokens"], **order["options"]}
        if order["seed"] is not None:
            digest = hashlib.blake2b(f"{order['seed']}:{index}".encode(), digest_size=8).digest()
            body["seed"] = int.from_bytes(digest, "big") >> 1
        answer = await _post(self.http, f"{self.url}/v1/completions", body)
        self.tokens += answer["usage"]["completion_tokens"]
        return {"role": "assistant", "content": answer["choices"][0]["text"].removeprefix(" ")}

    async def agenerate(self, messages: Any, stop: Any = None, **kwargs: Any) -> Any:
        """Not called by `BestOfN`."""
        raise NotImplementedError


class RewardModel(AbstractOutcomeRewardModel):  # type: ignore[misc]
    """R_c from both reward models, all candidates in one request to each."""

    def __init__(self, http: httpx.AsyncClient, urls: list[str], order: dict[str, Any]) -> None:
        self.http, self.urls, self.order = http, urls, order
        self.began = 0.0

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> list[float]:
        """Score conversations that end with a candidate."""
        self.began = time.perf_counter()
        prompt = self.order["prompt"]
        answers = [dialog[-1].content for dialog in messages]
        texts = [f"{prompt} {answer}</s>" if answer else f"{prompt}</s>" for answer in answers]
        urls = self.urls[:1] if self.order["is_safety"] else self.urls
        scores = await asyncio.gather(*(self._classify(url, texts) for url in urls))
        return [one[0] if len(one) == 1 or one[0] < 0.15 else one[1] for one in zip(*scores, strict=True)]

    async def _classify(self, url: str, texts: list[str]) -> list[float]:
        answer = await _post(self.http, f"{url}/classify", {"input": texts, "add_special_tokens": False})
        return [row["probs"][0] for row in sorted(answer["data"], key=lambda row: row["index"])]

    def score(self, messages: Any, **kwargs: Any) -> Any:
        """Not called by `BestOfN`."""
        raise NotImplementedError


async def _post(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> Any:
    response = await http.post(url, json=body)
    response.raise_for_status()
    return response.json()


async def answer(http: httpx.AsyncClient, urls: list[str], order: dict[str, Any]) -> None:
    """Run one best-of-N and print its outcome."""
    policy, rewards = Policy(http, urls[0], order), RewardModel(http, urls[1:], order)
    question = "the prompt's token ids are with the model"
    try:
        best = await BestOfN(rewards).ainfer(policy, question, order["candidates"])
        tail = time.perf_counter() - rewards.began if rewards.began else None
        told = {"text": best["content"], "tokens": policy.tokens, "score_tail": tail}
    except (httpx.HTTPError, RuntimeError, ValueError, KeyError) as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    _say({"number": order["number"], **told})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main(urls: list[str]) -> None:
    """Answer lines until the input ends."""
    lines, tasks = asyncio.StreamReader(limit=2**24), set[asyncio.Task[None]]()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as http:
        _say({"ready": True})
        while line := await lines.readline():
            task = asyncio.create_task(answer(http, urls, json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
