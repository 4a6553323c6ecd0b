"""A scripted annotator: works through a batch over HTTP, as a person does on the page, and knows the world's truth.

It tells the answers apart by the world's grades, in the paper's words. Where they do not differ, it skips the pair. A
share of its choices is turned round: noise. What it does depends on the pair and the seed alone, not on the order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from winnow.models.demo.world import DemoPrompt

NOISE = 0.15
"""The share of choices that are turned round."""
ROUTES = "/v1/annotation"
_CHOICES = {3: 1, 2: 2, 1: 3}
"""The choice for the left answer by how much its grade is higher; 9 less it is that for the right one."""
Turns = tuple[tuple[str, str], ...]


class AnnotationRefused(Exception):
    """The server did not take what an annotator sent."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A choice from 1, left significantly better, to 8, and whether either answer is safe."""

    choice: int
    left_safe: bool
    right_safe: bool
    is_noise: bool


@dataclass(frozen=True, slots=True)
class Work:
    """The work done: pairs annotated and skipped, choices that were turned round, and those that were questioned."""

    annotated: int
    skipped: int
    turned: int
    questioned: int


def turns(messages: Iterable[Mapping[str, Any]]) -> Turns:
    """Return a dialog as a key: the roles and contents of its messages."""
    return tuple((str(message["role"]), str(message["content"])) for message in messages)


class ScriptedAnnotator:
    """An annotator of answers to `prompts`; a share `noise` of its choices is turned round, by `seed`."""

    def __init__(self, prompts: Iterable[DemoPrompt], seed: int, noise: float = NOISE) -> None:
        self._prompts = {tuple((turn.role, turn.content) for turn in one.messages): one for one in prompts}
        self._seed, self._noise = seed, noise

    def judge(self, messages: Sequence[Mapping[str, Any]], left: str, right: str) -> Judgement | None:
        """Return the judgement of two answers; None where the world finds neither better."""
        prompt = self._prompts[turns(messages)]
        gap = prompt.grade(left, "helpfulness") - prompt.grade(right, "helpfulness")
        if not gap:
            return None
        choice = _CHOICES[gap] if gap > 0 else 9 - _CHOICES[-gap]
        is_noise = self._lot(messages, left, right) < self._noise
        safe_left, safe_right = (prompt.judge(answer).safe for answer in (left, right))
        return Judgement(9 - choice if is_noise else choice, safe_left, safe_right, is_noise)

    def _lot(self, messages: Sequence[Mapping[str, Any]], *answers: str) -> float:
        """Return a number from 0 to 1 for a pair, whichever answer is on the left."""
        key = json.dumps([self._seed, turns(messages), sorted(answers)])
        return Random(hashlib.blake2b(key.encode(), digest_size=8).digest()).random()

    def work(self, http: httpx.Client, batch: str, wanted: int) -> Work:
        """Annotate pairs of a batch until `wanted` are annotated, or none is left.

        Raises:
            AnnotationRefused: a request was not answered with 200.
        """
        annotated = skipped = turned = questioned = 0
        while annotated < wanted:
            pair = post(http, f"{ROUTES}/lease", {"batch": batch})["pair"]
            if pair is None:
                break
            found = self.judge(pair["messages"], pair["left"]["text"], pair["right"]["text"])
            if found is None:
                post(http, f"{ROUTES}/skip", {"lease": pair["lease"], "reason": "neither is better"})
                skipped += 1
                continue
            # Made from the lease, so that a choice that is sent twice counts once.
            submission = hashlib.sha256(pair["lease"].encode()).hexdigest()
            body = {
                "submission": submission, "lease": pair["lease"], "choice": found.choice,
                "left_safe": found.left_safe, "right_safe": found.right_safe,
            }  # fmt: skip
            questioned += post(http, f"{ROUTES}/annotations", body)["questioned"]
            annotated += 1
            turned += found.is_noise
        return Work(annotated, skipped, turned, questioned)


def post(http: httpx.Client, path: str, body: Mapping[str, Any]) -> Any:
    """Send a JSON body and return the answer's.

    Raises:
        AnnotationRefused: the answer was not 200.
    """
    response = http.post(path, json=body)
    if response.status_code != 200:
        raise AnnotationRefused(f"{path} answered {response.status_code}: {response.text[:500]}")
    return response.json()
