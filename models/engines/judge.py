"""A judge: a chat model behind an OpenAI-compatible API that answers with a grade.

The card's template makes one user message of the conversation and the answer, as inert text. A grade that is not of
the demanded form is asked for again, and then the candidate has failed: it never counts as a grade of 0.
"""

from __future__ import annotations

from typing import Any

from winnow.models.cards import Card
from winnow.models.chat_templates.sandbox import Refused, render
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.model_server import Broken, Endpoint, Malformed, RemoteScorer
from winnow.models.engines.remote import RemoteModel, read_models
from winnow.models.errors import CandidateFailed
from winnow.models.grades import expected_grade, grade_logit, inert, inert_messages, parse_grade
from winnow.models.types import Message, Prompt

PATH = "/chat/completions"
MODELS = "/models"
MOST_TOKENS = 16
"""Tokens of a grade, in JSON or alone."""
TRIES = 3
"""Times that a judge is asked for one grade: greedily first, then sampled, with a seed."""
RETRY_TEMPERATURE = 0.5
ALTERNATIVES = 20
UNLIMITED = 2**31
"""The context of a judge in tokens that are not the policy's: its server refuses what is too long."""


class JudgeInput:
    """Renders a conversation and an answer as the text that a judge is sent; there are no ids on this side."""

    def __init__(self, card: Card) -> None:
        assert card.template
        self._name, self._template, self._grades = card.name, card.template, card.grades

    def text(self, prompt: Prompt, answer: str) -> str:
        """Return the user's message to the judge.

        Raises:
            CandidateFailed: the card's template does not render this conversation.
        """
        messages = (Message("user", prompt.raw_text),) if prompt.is_raw else prompt.messages
        names: dict[str, Any] = {"answer": inert(answer), "grades": list(self._grades or ())}
        try:
            return render(
                self._template, inert_messages([message.as_dict() for message in messages]), names, to_answer=False
            )
        except Refused as reason:
            raise CandidateFailed(f"the template of judge {self._name} does not render this: {reason}") from None

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return no ids: the judge's server tokenises. Raises as `text` does."""
        self.text(prompt, answer)
        return []

    def shortened(self, prompt: Prompt, answer: str, context: int) -> None:
        """Return None: a judge is given the whole conversation."""

    def reread(self, prompt: Prompt) -> int:
        """Return 0: nothing is tokenised here."""
        return 0


class Judge(RemoteScorer):
    """Grades answers with a chat model on another server; a `ServedRewardModel`.

    `prompt_tokens` and `completion_tokens` are what its server has counted.
    """

    def __init__(self, options: EngineOptions, remote: RemoteModel, card: Card) -> None:
        super().__init__(options.name, remote, UNLIMITED)
        assert card.grades
        self._card, self._grades = card, card.grades
        self._input = JudgeInput(card)
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Return the logit of the grade of one answer; see `RewardModel.score`.

        Raises:
            ModelUnavailable: the server does not answer for now.
        """
        text = self._input.text(prompt, answer)
        for attempt in range(TRIES):
            choice = await self.server.post(PATH, self._body(text, attempt), self._only_choice)
            grade = self._grade(choice)
            if grade is not None:
                return grade_logit(grade, self._grades)
        raise CandidateFailed(f"the {self.name} judge gave no grade in {TRIES} answers")

    async def probe(self, server: Endpoint) -> None:
        """Return if the server lists the model, as far as it lists any, and answers; see `ModelServer`."""
        await self._require_listed(server)
        trial = {**self._body("Reply with 1.", 0), "max_tokens": 1}
        self._only_choice(await server.once("POST", PATH, trial))

    async def _require_listed(self, server: Endpoint) -> None:
        try:
            answer = await server.once("GET", MODELS)
        except Broken:
            if self.remote.root is None:  # a server that has never listed its models
                return
            raise
        try:
            found = read_models(self.remote.link, answer, self.remote.name)
        except ValueError as problem:
            raise Broken(f"it {problem}") from None
        if found.root != self.remote.root:
            raise Broken("another model is served there now; start Winnow again if that is meant")

    def _body(self, text: str, attempt: int) -> dict[str, Any]:
        sampling: dict[str, Any] = {"temperature": 0}
        if attempt:
            sampling = {"temperature": RETRY_TEMPERATURE, "seed": attempt}
        logprobs = {"logprobs": True, "top_logprobs": ALTERNATIVES} if self._card.expected else {}
        messages = [{"role": "user", "content": text}]
        return {"model": self.remote.name, "messages": messages, "max_tokens": MOST_TOKENS, **sampling, **logprobs}

    def _only_choice(self, answer: Any) -> dict[str, Any]:
        """Return the only choice of an answer, and count its tokens.

        Raises:
            Malformed: it has none, or several.
        """
        usage = answer.get("usage") if isinstance(answer, dict) else None
        if isinstance(usage, dict):
            self.prompt_tokens += _count(usage.get("prompt_tokens"))
            self.completion_tokens += _count(usage.get("completion_tokens"))
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise Malformed("it answers with another form than chat completions have")
        choice: dict[str, Any] = choices[0]
        return choice

    def _grade(self, choice: dict[str, Any]) -> float | None:
        """Return the grade, or the expected one; None if the answer is not exactly a grade, or was cut short."""
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or choice.get("finish_reason") != "stop":
            return None
        grade = parse_grade(content, self._grades)
        if grade is None or not self._card.expected:
            return grade
        logprobs = choice.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        return expected_grade(grade, tokens, self._grades)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
