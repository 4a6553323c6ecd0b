"""The client-side half of best-of-N, against servers played by a mock transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from winnow.loadtests.benchmarks.baselines.commands import chat_template
from winnow.loadtests.benchmarks.baselines.prompts import Renderer, held_out_requests
from winnow.loadtests.benchmarks.baselines.scorer import Scorer, best
from winnow.loadtests.benchmarks.baselines.systems import (
    BareVllm,
    Completions,
    GenerateThenClassify,
    OptiLlm,
    SequentialThenScore,
)
from winnow.loadtests.target import OpenAITarget
from winnow.loadtests.types import Request
from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.combiner import combine
from winnow.models.demo.world import held_out_prompts
from winnow.models.engines.base import RewardInput
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import CandidateFailed
from winnow.models.sampling import candidate_seed
from winnow.models.types import logit


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
        return httpx.Response(200, content=json.dumps({"data": rows[::-1]}))  # which may hold NaN

    @property
    def policy(self) -> Completions:
        return Completions(self.http, "http://policy")

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.http, "http://safety", "http://helpfulness")


def servers() -> Servers:
    """Candidate `b` is the most helpful but unsafe, `c` the best of the rest."""
    return Servers(["a", "b", "c"], {"a": 0.9, "b": 0.1, "c": 0.8}, {"a": 0.3, "b": 0.99, "c": 0.6})


async def test_scores_become_winnows_rewards(render: Renderer) -> None:
    played = servers()
    rewards = await played.scorer(render(request()), ["a", "b", "c"])
    assert rewards == [combine(False, logit(s), logit(h)) for s, h in ((0.9, 0.3), (0.1, 0.99), (0.8, 0.6))]
    assert [reward.combined for reward in rewards] == pytest.approx([0.3, 0.1, 0.6])
    assert best(rewards) == 2
    rewards = await played.scorer(render(request("How do I make a bomb?")), ["a", "b", "c"])
    assert [reward.helpfulness for reward in rewards] == [None] * 3
    assert best(rewards) == 0


async def test_exactly_the_threshold_goes_to_helpfulness_and_ties_to_the_lowest(render: Renderer) -> None:
    played = Servers([], {"a": 0.15, "b": 0.9}, {"a": 0.4, "b": 0.4})
    rewards = await played.scorer(render(request()), ["a", "b"])
    assert [reward.combined for reward in rewards] == [0.4, 0.4]
    assert best(rewards) == 0


async def test_a_score_that_is_no_number_is_a_failure(render: Renderer) -> None:
    played = Servers(["a", "b", "c"], dict.fromkeys("abc", float("nan")), dict.fromkeys("abc", 0.5))
    with pytest.raises(CandidateFailed):
        await played.scorer(render(request()), ["a"])
    assert (await GenerateThenClassify(render, played.policy, played.scorer).send(request())).kind == "failed"


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
        report = {"finished": 3, "winner_tokens": 4, "timings_ms": {"score_tail": 20.0}}
        choices = [{"message": {"content": "Plum."}}]
        return httpx.Response(200, json={"choices": choices, "usage": {"completion_tokens": 12}, "best_of_n": report})

    transport = httpx.MockTransport(answer)
    async with OpenAITarget("http://winnow/v1", model="winnow-demo", dialect="winnow", transport=transport) as winnow:
        reply = await winnow.send(request(options={"logit_bias": {"2": -100}}))
    assert (reply.text, reply.candidates, reply.sampled_tokens, reply.score_tail) == ("Plum.", 3, 12, 0.02)
    assert (bodies[0]["best_of_n"], bodies[0]["logit_bias"]) == ({"candidates": 3}, {"2": -100})
    http = httpx.AsyncClient(transport=transport)
    assert (await OptiLlm(http, {3: "http://proxy"}).send(request())).text == "Plum."
    assert (await OptiLlm(http, {4: "http://proxy"}).send(request())).kind == "failed"


def test_the_template_takes_the_messages_that_optillm_sends() -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"))

    def rendered(*messages: tuple[str, str]) -> str:
        dialog = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(dialog, chat_template=chat_template(), tokenize=False))

    assert rendered(("system", ""), ("user", "Hi")) == "<s>[INST] Hi [/INST]"
    assert rendered(("system", "Be brief."), ("user", "Hi")) == ("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]")
    rating = rendered(
        ("system", ""), ("user", "Hi"), ("system", "Rate it."), ("assistant", "Hello."), ("user", "Rate:")
    )
    assert rating == "<s>[INST] Hi\nRate it. [/INST] Hello. </s><s>[INST] Rate: [/INST]"


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
    """A classify server reads text; spelt otherwise, the baseline's scores would be those of another prompt."""
    tokenizer, template = load_tokenizer(str(demo.weights("policy")), "policy"), TEMPLATES["llama2"]
    reward_input, plain = RewardInput(tokenizer, template), AutoTokenizer.from_pretrained(demo.weights("policy"))
    for answer, prompt in zip(["A plum.", "", "  two spaces"] * 50, held_out_prompts(150), strict=True):
        dialog = tuple({"role": message.role, "content": message.content} for message in prompt.messages)
        rendered = render(Request(0, dialog, candidates=1, max_tokens=8))
        assert rendered.ids == template.render(dialog, tokenizer).token_ids
        ids = reward_input.token_ids(template.render(dialog, tokenizer), answer)
        assert plain(rendered.with_answer(answer), add_special_tokens=False).input_ids == ids


def test_requests_are_repeatable_and_can_ban_eos() -> None:
    assert held_out_requests(3, 4, seed=1, eos_id=2) == held_out_requests(5, 4, seed=1, eos_id=2)[:3]
    assert held_out_requests(3, 4, seed=1, eos_id=2)[0].options["logit_bias"] == {"2": -100}
    assert "logit_bias" not in held_out_requests(3, 4, seed=1, eos_id=None)[0].options
    rounds = [held_out_requests(9, 4, seed=number, eos_id=2) for number in range(3)]
    assert len({each.seed for requests in rounds for each in requests}) == 27
