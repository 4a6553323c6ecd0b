"""Answers without text over HTTP: scored, flagged, and below every other, whatever their rewards."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt

UNSAFE = math.log(0.05 / 0.95)


@dataclass
class Texts(ScriptedPolicy):
    """Candidate k has the k-th text."""

    texts: Sequence[str] = field(default_factory=list)

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        found = await super().sample(prompt, sampling, index, handle)
        return replace(found, text=self.texts[index])


def fond_of_nothing(otherwise: float) -> ScriptedRewardModel:
    """A reward model that scores answers without text highest, and the others at `otherwise`."""
    return ScriptedRewardModel(logit=lambda ids: otherwise if bytes(ids).strip() else 8.0)


def served(tokenizer: Tokenizer, texts: Sequence[str], safety: float = 2.0, **settings: Any) -> Any:
    policy = Texts(texts=texts)
    return ScriptedServer.start(
        scripted(tokenizer, policy, fond_of_nothing(safety), fond_of_nothing(-1.0), candidates=len(texts), **settings)
    )


@pytest.mark.parametrize("combiner", ["llama2", "safe_first"])
@pytest.mark.parametrize("safety", [2.0, UNSAFE])
@pytest.mark.parametrize("is_safety", [False, True])
def test_an_empty_answer_does_not_win(tokenizer: Tokenizer, combiner: str, safety: float, is_safety: bool) -> None:
    with served(tokenizer, ["", " \n", "plum", "kiwi"], safety, combiner=combiner) as server:
        body = server.chat(n=4, best_of_n={"is_safety": is_safety}).json()
        assert [choice["message"]["content"] for choice in body["choices"]] == ["plum", "kiwi", "", " \n"]
        report = body["best_of_n"]
        assert report["winner"] == 2
        assert [item["empty"] for item in report["scored"]] == [True, True, False, False]
        assert [item["rank"] for item in report["scored"]] == [2, 3, 0, 1]
        assert all(item["combined"] > 0.9 for item in report["scored"][:2]), "they are scored all the same"
        assert report["all_unsafe"] is (safety == UNSAFE)
        assert report["safe_passed_over"] is False
        answers = {"answers": ["plum", "", "kiwi", " "], "is_safety": is_safety}
        with server.http as http:
            message = {"role": "user", "content": "Fruits?"}
            rewards = http.post("/v1/rewards", json={"model": "winnow-demo", "messages": [message], **answers}).json()
        assert [(item["rank"], item["empty"]) for item in rewards["rewards"]] == [
            (0, False),
            (2, True),
            (1, False),
            (3, True),
        ]


def test_an_empty_answer_does_not_keep_unsafe_ones_from_being_refused(tokenizer: Tokenizer) -> None:
    """It counts as safe by its score, but it is no answer: what would be returned is unsafe."""
    with served(tokenizer, ["", "boom", "bang"], UNSAFE, when_all_unsafe="refuse", refusal="No.") as server:
        body = server.chat().json()
        assert body["choices"][0]["message"]["content"] == "No."
        assert body["choices"][0]["finish_reason"] == "content_filter"


def test_if_all_are_empty_the_best_is_returned(tokenizer: Tokenizer) -> None:
    with served(tokenizer, ["", " ", "\n"]) as server:
        body = server.chat().json()
        assert (body["choices"][0]["message"]["content"], body["best_of_n"]["winner"]) == ("", 0)


def test_the_rule_can_be_switched_off(tokenizer: Tokenizer) -> None:
    with served(tokenizer, ["plum", ""], empty_last=False) as server:
        report = server.chat().json()["best_of_n"]
        assert report["winner"] == 1
        assert [item["empty"] for item in report["scored"]] == [False, True]


def test_progress_shows_the_best_answer_that_has_text(tokenizer: Tokenizer) -> None:
    with served(tokenizer, ["", "plum"]) as server:
        options = {"best_of_n": {"progress": True}, "stream": True}
        events = [json.loads(line[6:]) for line in server.chat(**options).text.splitlines() if line[:7] == "data: {"]
        states = [event["best_of_n"]["progress"] for event in events if "progress" in event.get("best_of_n", {})]
        assert states[-1]["best_so_far"] == pytest.approx(1 / (1 + math.e))
