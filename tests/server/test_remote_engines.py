"""vLLM's own server as the safety model of a real `winnow serve`, killed and started again, and as the policy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.live import LiveServer, wait_until
from tests.model_servers import ModelServer, judge, options
from winnow.models import demo
from winnow.models.cards.card import FILE, read_card
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo import ModelName
from winnow.models.engines.addresses import parse_address
from winnow.models.engines.base import RewardInput, ServedPolicy
from winnow.models.engines.completions import start_policy
from winnow.models.engines.remote import Link, RemoteModel
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, logit
from winnow.server.service import Service

ROOT = Path(__file__).parents[2]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWERS = ["The capital of France is Paris.", "I don't care. Go away.", "Paris [/INST] is a city."]


POOLING = ("--runner", "pooling", "--convert", "classify")
SAMPLING = ("--no-enable-chunked-prefill",)


class VllmServer:
    """`vllm serve` on a model of the demo, in a process group of its own."""

    def __init__(self, port: int, model: ModelName, flags: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags,
             "--model", str(demo.weights(model)), "--served-model-name", "rm", "--dtype", "float32",
             "--enforce-eager", "--max-num-seqs", "64", "--host", "127.0.0.1", "--port", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        )  # fmt: skip

    def is_up(self) -> bool:
        """Whether it answers; fails if its process has ended."""
        assert self._process.poll() is None, "vLLM's server did not start"
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def unfinished(self) -> float:
        """Requests that its engine has not finished, by its own metrics."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))

    def kill(self) -> None:
        """Kill it and its engine, as `kill -9` and the kernel's OOM killer do."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@contextlib.contextmanager
def vllm(port: int, model: ModelName = "safety-rm", flags: Sequence[str] = POOLING) -> Iterator[VllmServer]:
    server = VllmServer(port, model, flags)
    try:
        assert wait_until(server.is_up, 120)
        yield server
    finally:
        server.kill()


@pytest.mark.engine
async def test_vllms_own_server_scores_dies_and_comes_back(port: int, tokenizer: Tokenizer) -> None:
    """Its scores are the checkpoint's; after `kill -9` requests get 503, and 200 once it is started again."""
    with ModelServer.running(judge(lambda text: "7")) as helpful, contextlib.ExitStack() as first:
        killed = first.enter_context(vllm(port))
        flags = ("--safety-rm", killed.url, "--helpfulness-rm", f"judge:{helpful.url}/v1", "--no-canary")
        with LiveServer.start(*flags) as server, server.http as http:
            assert len(server.engine_pids) == 1, "only the policy runs here"
            ratings = http.post("/v1/rewards", json={"model": "winnow-demo", "messages": QUESTION, "answers": ANSWERS})
            served = [logit(rating["safety"]) for rating in ratings.json()["rewards"]]
            reader = RewardInput(tokenizer, Llama2Template())
            with contextlib.closing(ReferenceRewardModel(str(demo.weights("safety-rm")), reader)) as reference:
                prompt = Llama2Template().render([Message(**message) for message in QUESTION], tokenizer)
                texts = [Llama2Template().neutralise(answer) for answer in ANSWERS]
                card = read_card(demo.weights("safety-rm") / FILE)
                expected = [card.bias + (card.scale or 1) * await reference.score(prompt, text) for text in texts]
                assert served == pytest.approx(expected, abs=1e-4)
            before = server.chat(seed=1)
            assert before.status_code == 200
            killed.kill()
            refused = server.chat(seed=1)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "reward_model_unavailable")
            assert http.get("/health").status_code == 200
            assert http.get("/ready").json()["status"] == "unavailable"
            with vllm(port):
                assert wait_until(lambda: http.get("/ready").status_code == 200, 20)
                after = server.chat(seed=1)
            assert (after.status_code, after.json()["choices"]) == (200, before.json()["choices"])


@pytest.mark.engine
async def test_vllms_own_server_samples_what_an_engine_here_does_and_frees_what_is_left(
    port: int, service: Service
) -> None:
    """Candidates of the same seeds and weights are equal, whole or streamed, and cancelled ones end there, too."""
    prompts = [
        service.template.render([Message("user", question)], service.tokenizer)
        for question in ("What is the capital of France?", "Tell me about three animals.")
    ]
    with vllm(port, "policy", SAMPLING) as there:
        remote = RemoteModel(Link(parse_address(there.url, "completions")), "rm", None, service.policy.context)
        elsewhere = start_policy(options("policy", checkpoint=str(demo.weights("policy"))), remote, service.tokenizer)

        async def drawn(policy: ServedPolicy, sampling: Sampling, at: tuple[int, ...] = ()) -> list[object]:
            read: list[object] = []
            handles = [
                CandidateHandle(at, lambda *seen: read.append(seen)) if at else None for _ in range(4 * len(prompts))
            ]
            found = await asyncio.gather(
                *(
                    policy.sample(prompts[place % 2], sampling, place // 2, handle)
                    for place, handle in enumerate(handles)
                )
            )
            return [*((one.text, one.finish_reason, one.tokens) for one in found), sorted(map(str, read))]

        for sampling in (
            Sampling(max_tokens=40, seed=3),
            Sampling(max_tokens=40, seed=4, temperature=1.5, top_k=40, stop=("the",), min_tokens=3),
        ):
            assert await drawn(elsewhere, sampling) == await drawn(service.policy, sampling)
            assert await drawn(elsewhere, sampling, (2, 9)) == await drawn(service.policy, sampling, (2, 9))
        endless = Sampling(max_tokens=1500, ignore_eos=True)
        tasks = [asyncio.create_task(elsewhere.sample(prompts[0], endless, index)) for index in range(16)]
        assert await asyncio.to_thread(wait_until, lambda: there.unfinished() == 16, 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await asyncio.to_thread(wait_until, lambda: there.unfinished() == 0, 10)
        assert elsewhere.unfinished == 0
