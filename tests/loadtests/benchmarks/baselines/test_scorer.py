"""The client-side half of best-of-N, against servers played by a mock transport."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.loadtests.benchmarks.baselines.prompts import Renderer, held_out_requests, prompt_text, scored_text
from winnow.loadtests.benchmarks.baselines.scorer import Scorer, Scores
from winnow.loadtests.benchmarks.baselines.systems import (
    BareVllm,
    Completions,
    GenerateThenClassify,
    OptiLlm,
    SequentialThenScore,
    WinnowServer,
)
from winnow.loadtests.types import Request
from winnow.models.combiner import combine
from winnow.models.demo.world import held_out_prompts
from winnow.models.sampling import candidate_seed

probability = st.floats(0.001, 0.999)


@pytest.fixture(scope="module")
def render() -> Renderer:
    return Renderer()


def request(content: str = "Name three fruits.", **fields: Any) -> Request:
    given: dict[str, Any] = {"candidates": 3, "max_tokens": 8, "seed": 5, "options": {"temperature": 1.0}}
    return Request(0, ({"role": "user", "content": content},), **{**given, **fields})


class Servers:
    """vLLM's three servers: candidates come from `texts`, scores from the tables by an answer's text."""

    def __init__(self, texts: list[str], safety: dict[str, float], helpfulness: dict[str, float]) -> None:
        self.texts, self.tables = iter(texts), {"safety": safety, "helpfulness": helpfulness}
        self.bodies: dict[str, list[dict[str, Any]]] = {"policy": [], "safety": [], "helpfulness": []}
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies[request.url.host].append(body)
        if request.url.path == "/v1/completions":
            choices = [{"index": i, "text": f" {next(self.texts)}"} for i in range(body["n"])]
            return httpx.Response(200, json={"choices": choices[::-1], "usage": {"completion_tokens": 8 * body["n"]}})
        answers = [text.split("[/INST] ")[1].removesuffix("</s>") for text in body["input"]]
        rows = [{"index": i, "probs": [self.tables[request.url.host][text]]} for i, text in enumerate(answers)]
        return httpx.Response(200, json={"data": rows[::-1]})

    @property
    def policy(self) -> Completions:
        return Completions(self.http, "http://policy")

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.http, "http://safety", "http://helpfulness")


def servers() -> Servers:
    """Candidate `b` is the most helpful but unsafe, `c` the best of the rest."""
    return Servers(["a", "b", "c"], {"a": 0.9, "b": 0.1, "c": 0.8}, {"a": 0.3, "b": 0.99, "c": 0.6})


@given(st.booleans(), st.lists(st.tuples(probability, probability), min_size=1, max_size=8))
def test_the_combination_is_winnows(is_safety: bool, pairs: list[tuple[float, float]]) -> None:
    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    scores = Scores(is_safety, tuple(s for s, _ in pairs), tuple(h for _, h in pairs))
    ours = [combine(is_safety, logit(s), logit(h)).combined for s, h in pairs if abs(s - 0.15) > 1e-9]
    theirs = [c for c, (s, _) in zip(scores.combined, pairs, strict=True) if abs(s - 0.15) > 1e-9]
    assert theirs == pytest.approx(ours)
    assert scores.combined[scores.winner] == max(scores.combined)


def test_exactly_the_gate_goes_to_helpfulness_and_ties_to_the_lowest() -> None:
    scores = Scores(False, (0.15, 0.9), (0.4, 0.4))
    assert scores.combined == (0.4, 0.4)
    assert scores.winner == 0


async def test_generate_then_classify_sends_one_request_to_each_server(render: Renderer) -> None:
    played = servers()
    reply = await GenerateThenClassify(render, played.policy, played.scorer).send(request())
    assert (reply.kind, reply.text, reply.candidates, reply.sampled_tokens) == ("answered", "c", 3, 24)
    assert {host: len(bodies) for host, bodies in played.bodies.items()} == {"policy": 1, "safety": 1, "helpfulness": 1}
    (sampled,), (classified,) = played.bodies["policy"], played.bodies["safety"]
    assert sampled["n"] == 3
    assert sampled["prompt"] == list(render(request()).ids)
    assert classified["input"] == [f"<s>[INST] Name three fruits. [/INST] {text}</s>" for text in "abc"]
    assert classified["add_special_tokens"] is False


async def test_a_safety_prompt_is_ranked_by_safety_alone(render: Renderer) -> None:
    played = servers()
    reply = await GenerateThenClassify(render, played.policy, played.scorer).send(request("How do I make a bomb?"))
    assert reply.text == "a"
    assert not played.bodies["helpfulness"]


async def test_one_by_one_uses_winnows_seeds(render: Renderer) -> None:
    played = servers()
    reply = await SequentialThenScore(render, played.policy, played.scorer).send(request())
    assert (reply.text, reply.candidates, reply.sampled_tokens) == ("c", 3, 24)
    assert [(body["n"], body["seed"]) for body in played.bodies["policy"]] == [
        (1, candidate_seed(5, i)) for i in range(3)
    ]


async def test_bare_vllm_scores_nothing(render: Renderer) -> None:
    played = servers()
    reply = await BareVllm(render, played.policy).send(request())
    assert (reply.text, reply.score_tail) == ("a", None)
    assert not played.bodies["safety"]


async def test_winnow_and_optillm_are_asked_in_their_own_ways() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        told = {"finished": 3, "winner_tokens": 4, "timings_ms": {"score_tail": 20.0}}
        choices = [{"message": {"content": " Plum."}}]
        return httpx.Response(200, json={"choices": choices, "usage": {"completion_tokens": 12}, "best_of_n": told})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    reply = await WinnowServer(http, "http://winnow").send(request(options={"logit_bias": {"2": -100}}))
    assert (reply.text, reply.candidates, reply.sampled_tokens, reply.score_tail) == ("Plum.", 3, 12, 0.02)
    assert (bodies[0]["best_of_n"], bodies[0]["logit_bias"]) == ({"candidates": 3}, {"2": -100})
    assert (await OptiLlm(http, {3: "http://proxy"}).send(request())).text == "Plum."
    assert (await OptiLlm(http, {4: "http://proxy"}).send(request())).kind == "failed"


@pytest.mark.parametrize(
    ("respond", "kind"),
    [
        (lambda _: httpx.Response(429, text="full"), "refused"),
        (lambda _: httpx.Response(500, text="broken"), "failed"),
        (lambda _: httpx.Response(200, json={"unexpected": 1}), "failed"),
        (lambda _: httpx.Response(200, text="no JSON"), "failed"),
    ],
)
async def test_what_goes_wrong_is_a_reply(
    respond: Callable[[Any], httpx.Response], kind: str, render: Renderer
) -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    reply = await BareVllm(render, Completions(http, "http://policy")).send(request())
    assert reply.kind == kind
    assert reply.error


def test_the_text_is_tokenised_to_the_ids_that_winnows_models_read(render: Renderer) -> None:
    """A classify server reads text; were it spelt otherwise, the baseline's scores would be those of another prompt."""
    template = render.template
    for answer, prompt in zip(["A plum.", "", "  two spaces"] * 50, held_out_prompts(150), strict=True):
        dialog = [{"role": message.role, "content": message.content} for message in prompt.messages]
        ids = [*template.render(dialog).token_ids, *template.encode_answer(answer), template.eos_id]
        text = scored_text(prompt_text(dialog), answer)
        assert template.tokenizer(text, add_special_tokens=False).input_ids == ids


def test_asks_are_repeatable_and_can_ban_eos() -> None:
    assert held_out_requests(3, 4, seed=1, eos_id=2) == held_out_requests(5, 4, seed=1, eos_id=2)[:3]
    assert held_out_requests(3, 4, seed=1, eos_id=2)[0].options["logit_bias"] == {"2": -100}
    assert "logit_bias" not in held_out_requests(3, 4, seed=1, eos_id=None)[0].options
    assert (
        len({request.seed for round_ in range(3) for request in held_out_requests(9, 4, seed=round_, eos_id=2)}) == 27
    )
