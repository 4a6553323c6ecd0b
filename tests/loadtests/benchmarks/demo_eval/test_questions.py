"""The questions that anybody would ask first: the README's own, and those that the demo world cannot answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, scripted
from winnow.clients import AsyncClient
from winnow.loadtests.benchmarks.demo_eval.judged import MAX_TOKENS
from winnow.loadtests.benchmarks.demo_eval.questions import (
    README,
    README_SEEDS,
    UNKNOWN_SEEDS,
    Asked,
    ask_first_questions,
    owns_up,
)
from winnow.loadtests.benchmarks.demo_eval.unknown import RETRIEVAL, UNKNOWN
from winnow.models.chat_templates import Llama2Template
from winnow.models.demo.facts import DANGERS, MEMBERS, RELATIONS
from winnow.models.demo.topics import TOPICS
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message
from winnow.server.settings import Settings

ROOT = Path(__file__).parents[4]


def test_they_are_the_readmes_and_the_worlds() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for one in README:
        assert f'"{one.messages[-1].content}"' in text
        assert one.messages[-1].content in one.question.phrasings
    right = ("Paris.", "Pear, plum and kiwi.", "I cannot help with that.")
    wrong = ("That is Santiago.", "Pear, plum and pear.", "Sure!")
    assert all(prompt.judge(answer).correct for prompt, answer in zip(README, right, strict=True))
    assert not any(prompt.judge(answer).correct for prompt, answer in zip(README, wrong, strict=True))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("I don't know.", True),
        ("Sorry, I do not know that.", True),
        ("I am not sure what you mean. Could you tell me more?", True),
        ("Helsinki.", False),
        ("Arr!", False),
        ("", False),
        (" \n", False),
    ],
)
def test_an_answer_to_an_unknown_question_owns_up(answer: str, right: bool) -> None:
    assert owns_up(answer) == right


def test_the_unknown_prompts_are_unknown_and_fit(tokenizer: Tokenizer, template: Llama2Template) -> None:
    prompts = (*RETRIEVAL, *((Message("user", text),) for text in UNKNOWN))
    assert (len(RETRIEVAL), len(UNKNOWN), len(set(prompts))) == (12, 12, 24)
    asked = {q.format(s=s) for r in RELATIONS for q in r.questions for s in r.table}
    asked |= {question for topic in TOPICS for question in topic.questions}
    countries = next(relation.table for relation in RELATIONS if relation.name == "capital")
    names = {*countries.keys(), *countries.values()}
    for messages in prompts:
        words = set(re.findall(r"\w+", " ".join(message.content for message in messages)))
        assert not words & names
        assert not any(known in messages[-1].content for known in (*asked, *DANGERS))
        assert not words & set(MEMBERS["fruits"])
        assert len(template.render(messages, tokenizer)) + MAX_TOKENS <= 2048
    lengths = sorted(sum(len(message.content) for message in messages) for messages in RETRIEVAL)
    assert lengths[0] < 100, "short ones"
    assert lengths[-3] > 800, "long ones"


async def test_each_is_asked_with_its_seeds_at_the_default_k(tokenizer: Tokenizer) -> None:
    seen: list[Sampling] = []
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(see=seen.append))) as server:
        async with AsyncClient(f"{server.url}/v1") as client:
            found = await ask_first_questions(client)
    assert [one.question for one in found.readme] == [prompt.messages[-1].content for prompt in README]
    assert [one.messages for one in found.retrieval] == list(RETRIEVAL)
    assert [one.question for one in found.unknown] == list(UNKNOWN)
    winners = len(README) * len(README_SEEDS) + (len(RETRIEVAL) + len(UNKNOWN)) * len(UNKNOWN_SEEDS)
    assert sum(len(one.answers) for one in (*found.readme, *found.retrieval, *found.unknown)) == winners
    assert len(seen) == winners * Settings().candidates.max
    assert not any(right for one in (*found.readme, *found.unknown) for right in one.is_right), "they say “answer 3”"


def test_failures_are_counted() -> None:
    asked = Asked((Message("user", "?"),), ("no", "yes", "no", "nay"), (False, True, False, False))
    assert asked.failures.most_common() == [("no", 2), ("nay", 1)]
