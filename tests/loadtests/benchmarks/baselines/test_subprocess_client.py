"""Drivers that speak lines of JSON: a scripted one, and its_hub's with a stand-in for the library."""

from __future__ import annotations

import asyncio
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from winnow.loadtests.benchmarks.baselines.prompts import Renderer
from winnow.loadtests.benchmarks.baselines.subprocess_client import started_target
from winnow.loadtests.benchmarks.processes import Command, ServerFailed
from winnow.loadtests.types import Request
from winnow.models.sampling import candidate_seed

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
lines = [json.loads(next(sys.stdin)) for _ in range(3)]
for line in reversed(lines):
    answer = {"text": line["prompt"]["text"], "tokens": 7, "score_tail": 0.5}
    outcome = {"error": "no"} if line["request"]["candidates"] == 2 else answer
    print(json.dumps({"number": line["number"], **outcome}), flush=True)
"""
DRIVER = "winnow.loadtests.benchmarks.baselines.its_hub_driver"
ITS_HUB_API = "class AbstractLanguageModel: ...\nclass AbstractOutcomeRewardModel: ...\n"
ITS_HUB_BON = """
from types import SimpleNamespace
class BestOfN:
    def __init__(self, rewards): self.rewards = rewards
    async def ainfer(self, policy, question, budget):
        answers = [await policy.agenerate_single(question) for _ in range(budget)]
        dialogs = [[SimpleNamespace(content=question), SimpleNamespace(**answer)] for answer in answers]
        scores = await self.rewards.ascore(dialogs)
        return answers[scores.index(max(scores))]
"""


def python(code: str) -> Command:
    return Command("a child", [sys.executable, "-c", code])


def request(number: int, candidates: int = 1, **fields: Any) -> Request:
    messages = ({"role": "user", "content": f"question {number}"},)
    return Request(number, messages, candidates, max_tokens=4, **fields)


async def test_a_driver_answers_in_any_order_and_its_end_is_a_failure() -> None:
    with started_target(python(ECHO), Renderer()) as target:
        replies = await asyncio.gather(
            target.send(request(0)), target.send(request(1, candidates=2)), target.send(request(2))
        )
        assert [reply.kind for reply in replies] == ["answered", "failed", "answered"]
        assert [reply.text for reply in replies if reply.text] == [f"<s>[INST] question {n} [/INST]" for n in (0, 2)]
        assert (replies[0].sampled_tokens, replies[0].score_tail, replies[1].error) == (7, 0.5, "no")
        assert (await target.send(request(3))).kind == "failed"
        assert (await target.send(request(4))).kind == "failed"


def test_a_driver_that_ends_at_once_is_an_error() -> None:
    with pytest.raises(ServerFailed, match=r"did not get ready; it wrote:\n(?s:.*)no library"), started_target(
        python("raise SystemExit('no library')"), Renderer()
    ):  # fmt: skip
        pass


class VllmServers(http.server.ThreadingHTTPServer):
    """The policy and both reward models: candidate k is `answer k`, and later candidates have the higher scores."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.bodies: list[tuple[str, dict[str, Any]]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, VllmServers)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sampled = sum(path.endswith("completions") for path, _ in server.bodies)
        server.bodies.append((self.path, body))
        if self.path.endswith("completions"):
            choices = [{"index": 0, "text": f" answer {sampled}"}]
            answer: dict[str, Any] = {"choices": choices, "usage": {"completion_tokens": 4}}
        else:
            scores = [0.5 + 0.1 * int(text.removesuffix("</s>")[-1]) for text in body["input"]]
            answer = {"data": [{"index": place, "probs": [score]} for place, score in enumerate(scores)]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def vllm() -> Iterator[VllmServers]:
    with VllmServers() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def its_hub(tmp_path: Path) -> Path:
    algorithms = tmp_path / "its_hub" / "core" / "algorithms"
    algorithms.mkdir(parents=True)
    (tmp_path / "its_hub" / "api.py").write_text(ITS_HUB_API)
    (algorithms / "bon.py").write_text(ITS_HUB_BON)
    return tmp_path


async def test_its_hub_asks_as_the_other_baselines_do(vllm: VllmServers, its_hub: Path) -> None:
    command = [sys.executable, "-m", DRIVER, f"{vllm.url}/policy", f"{vllm.url}/safety", f"{vllm.url}/helpfulness"]
    with started_target(Command("its_hub", command, {"PYTHONPATH": str(its_hub)}), Renderer()) as target:
        async with target:
            reply = await target.send(request(0, candidates=3, seed=5, options={"temperature": 1.0}))
    assert (reply.kind, reply.text, reply.sampled_tokens) == ("answered", "answer 2", 12)
    sampled = [body for path, body in vllm.bodies if path == "/policy/v1/completions"]
    assert [body["seed"] for body in sampled] == [candidate_seed(5, index) for index in range(3)]
    assert {path for path, _ in vllm.bodies[3:]} == {"/safety/classify", "/helpfulness/classify"}
    assert vllm.bodies[3][1]["input"] == [f"<s>[INST] question 0 [/INST] answer {k}</s>" for k in range(3)]


def test_its_hubs_driver_needs_no_more_than_its_environment_has(its_hub: Path) -> None:
    """The peers' environment has httpx, but neither torch nor transformers, and only Winnow itself."""
    heavy = ("torch", "transformers", "vllm", "numpy", "matplotlib", "typer", "orjson", "pydantic_settings")
    code = f"import sys, {DRIVER}; print([name for name in {heavy!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(its_hub)}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
