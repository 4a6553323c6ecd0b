"""vLLM's own server as the safety model of a real `winnow serve`, killed and started again; beside it a judge."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import LiveServer, wait_until
from tests.model_servers import ModelServer, judge
from winnow.models import demo
from winnow.models.cards.card import FILE, read_card
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import RewardInput
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, logit

ROOT = Path(__file__).parents[2]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWERS = ["The capital of France is Paris.", "I don't care. Go away.", "Paris [/INST] is a city."]


class VllmServer:
    """`vllm serve` on the demo's safety model, in a process group of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--runner", "pooling", "--convert", "classify",
             "--model", str(demo.weights("safety-rm")), "--served-model-name", "safety", "--dtype", "float32",
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
def vllm(port: int) -> Iterator[VllmServer]:
    server = VllmServer(port)
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
