"""A policy behind an OpenAI-compatible chat endpoint: messages there, texts back.

The endpoint has its own template and tokenizer, so what people write is as safe there as it makes it. The candidates of
a prompt that are wanted in the same turn of the event loop are asked for together, with `n`; an endpoint that lacks it
is asked for each by itself. Log-probabilities and scores of unfinished answers are not covered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.engines.base import EngineOptions
from winnow.models.engines.model_server import Broken, Endpoint, Malformed, Refused, RemoteEngine
from winnow.models.engines.remote import RemoteModel, most_bytes, read_models
from winnow.models.engines.stopping import stoppable
from winnow.models.errors import CandidateFailed
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, FinishReason, Prompt

PATH, MODELS = "/chat/completions", "/models"
UNLIMITED = 2**31
"""The context, and the vocabulary, of an endpoint whose tokens are not known here: it refuses what is too long."""
OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""The fields that limit an answer; the old one is known to most servers, and refused by some models."""
SEEDS = 2**31
"""Seeds are below: some servers read them as 32 bits."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """One choice: its text, why it ended, and the tokens that the server has counted for it and its prompt."""

    text: str
    finish_reason: str
    tokens: int
    prompt_tokens: int


@dataclass(slots=True, eq=False)
class _Group:
    """Candidates of one prompt that are asked for together; `task` has as many answers as the server gave."""

    task: asyncio.Task[list[_Answer]]
    indices: list[int]
    waiting: int = 0


class ChatPolicy(RemoteEngine):
    """Samples candidates on a chat endpoint; a `ServedPolicy`.

    `prompt_tokens` and `completion_tokens` are what the endpoint has counted. `tokenizer` is a stand-in for its own,
    to share a count between the answers of one request.
    """

    def __init__(self, options: EngineOptions, remote: RemoteModel, tokenizer: Tokenizer) -> None:
        super().__init__(options.name, remote, options.context or UNLIMITED)
        self.vocabulary = UNLIMITED
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._tokenizer = tokenizer
        self._lacks_n = False
        self._limit = OLD_LIMIT
        self._open: dict[tuple[int, int], _Group] = {}
        """The group of each prompt and its sampling, by their `id`s, that candidates can still join."""

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        """Sample one candidate; see `Policy.sample`.

        Raises:
            ModelUnavailable: the endpoint does not answer for now.
        """
        started = asyncio.get_running_loop().time()
        work = self._answer(prompt, sampling, index)
        answer = await (stoppable(work, handle, lambda: 0) if handle else work)
        return Candidate(
            index=index,
            text=answer.text,
            finish_reason=_finish_reason(answer.finish_reason),
            tokens=answer.tokens,
            seconds=asyncio.get_running_loop().time() - started,
            prompt_tokens=answer.prompt_tokens,
        )

    async def _answer(self, prompt: Prompt, sampling: Sampling, index: int) -> _Answer:
        """Return one candidate's answer: with others of its prompt, or by itself if the endpoint lacks `n`."""
        if self._lacks_n:
            return await self._alone(prompt, sampling, index)
        group = self._group(prompt, sampling)
        place = len(group.indices)
        group.indices.append(index)
        group.waiting += 1
        try:
            # Shielded: the others may still need it.
            found = await asyncio.shield(group.task)
        finally:
            group.waiting -= 1
            if not group.waiting:
                group.task.cancel()
        if place < len(found):
            return found[place]
        answer = await self._alone(prompt, sampling, index)
        self._lacks_n = True  # what was refused for several is answered for one
        return answer

    def _group(self, prompt: Prompt, sampling: Sampling) -> _Group:
        key = id(prompt), id(sampling)
        group = self._open.get(key)
        if group is None or group.task.cancelling() or group.task.done():  # it may have been left just now
            indices: list[int] = []
            group = _Group(asyncio.create_task(self._together(key, prompt, sampling, indices)), indices)
            group.task.add_done_callback(lambda _: self._close(key, indices))
            self._open[key] = group
        return group

    def _close(self, key: tuple[int, int], indices: list[int]) -> None:
        if key in self._open and self._open[key].indices is indices:
            del self._open[key]

    async def _together(
        self, key: tuple[int, int], prompt: Prompt, sampling: Sampling, indices: list[int]
    ) -> list[_Answer]:
        """Return the answers to a group, which is closed once others have had a turn to join it; maybe too few."""
        await asyncio.sleep(0)
        self._close(key, indices)
        try:
            return await self._asked(prompt, sampling, indices)
        except Refused:
            if len(indices) == 1:
                raise
            return []

    async def _alone(self, prompt: Prompt, sampling: Sampling, index: int) -> _Answer:
        return (await self._asked(prompt, sampling, [index]))[0]

    async def _asked(self, prompt: Prompt, sampling: Sampling, indices: Sequence[int]) -> list[_Answer]:
        """Ask for candidates once, or twice if the endpoint wants the limit in the other field."""
        count = len(indices)
        for _ in range(2):
            limit = self._limit
            try:
                return await self.server.post(
                    PATH,
                    self._body(prompt, sampling, indices),
                    lambda answer: self._read(answer, count),
                    most_bytes(count * sampling.max_tokens),
                )
            except Refused as refusal:
                if limit == OLD_LIMIT and _wants_new_limit(refusal):
                    self._limit = NEW_LIMIT
                elif self._limit == limit:
                    raise
        raise CandidateFailed("the policy's server refuses every limit of an answer")

    def _body(self, prompt: Prompt, sampling: Sampling, indices: Sequence[int]) -> dict[str, Any]:
        """Return the request. Fields that OpenAI's API lacks are there only if the caller has set them."""
        neutral = Sampling(sampling.max_tokens)
        names = ("top_p", "top_k", "min_p", "min_tokens", "ignore_eos", "presence_penalty", "frequency_penalty")
        given = {
            name: value
            for name in (*names, "repetition_penalty")
            if (value := getattr(sampling, name)) != getattr(neutral, name)
        }
        bias = {str(token): value for token, value in sampling.logit_bias.items()}
        seed = None if sampling.seed is None else candidate_seed(sampling.seed, indices[0]) % SEEDS
        return {
            "model": self.remote.name,
            "messages": [message.as_dict() for message in prompt.messages],
            "temperature": sampling.temperature,
            self._limit: sampling.max_tokens,
            **given,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({"logit_bias": bias} if bias else {}),
            **({} if seed is None else {"seed": seed}),
            **({"n": len(indices)} if len(indices) > 1 else {}),
        }

    def _read(self, answer: Any, count: int) -> list[_Answer]:
        """Return the choices of an answer, at most `count`, and count its tokens.

        Raises:
            Malformed: it has none, or another form.
        """
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or len(choices) > count:
            raise Malformed("it answers with another form than chat completions have")
        texts = [_text(choice) for choice in choices]
        usage = answer.get("usage")
        told = usage if isinstance(usage, dict) else {}
        prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        lengths = [len(self._tokenizer.encode_continuation(text)) + 1 for text in texts]
        tokens = _shared(completion or sum(lengths), lengths)
        return [
            _Answer(text, _word(choice.get("finish_reason")), tokens[place], 0 if place else prompt)
            for place, (text, choice) in enumerate(zip(texts, choices, strict=True))
        ]

    async def probe(self, server: Endpoint) -> None:
        """Return if the endpoint lists the model, as far as it lists any, and answers; see `ModelServer`."""
        try:
            found = read_models(self.remote.link, await server.once("GET", MODELS), self.remote.name)
        except ValueError as problem:
            raise Broken(f"it {problem}") from None
        except Broken:
            if self.remote.root is not None:  # else a server that has never listed its models
                raise
        else:
            if found.root != self.remote.root:
                raise Broken("another model is served there now; start Winnow again if that is meant")
        trial = {
            "model": self.remote.name,
            "messages": [{"role": "user", "content": "Reply with 1."}],
            self._limit: 16,
        }
        self._read(await server.once("POST", PATH, trial), 1)


def _text(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Malformed("it answers with another form than chat completions have")
    content = message.get("content")
    text = message.get("refusal") if content is None else content
    if text is not None and not isinstance(text, str):
        raise Malformed("it answers with something else than text")
    return text or ""


def _finish_reason(told: str) -> FinishReason:
    """Return how an answer ended.

    Raises:
        CandidateFailed: its server has withheld it, or wants to call a tool.
    """
    if told in ("content_filter", "tool_calls", "function_call"):
        raise CandidateFailed(f"the policy's server gave no answer ({told})")
    return "length" if told == "length" else "stop"


def _wants_new_limit(refusal: Refused) -> bool:
    """Whether a refusal says that the limit of an answer goes into the other field."""
    return refusal.status == 400 and NEW_LIMIT.encode() in refusal.told


def _word(value: Any) -> str:
    return value if isinstance(value, str) else "stop"


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _shared(total: int, lengths: Sequence[int]) -> list[int]:
    """Return whole numbers that are `total` together, in about the proportion of `lengths`."""
    whole, ends, done = sum(lengths), 0, 0
    shares = []
    for length in lengths:
        ends += length
        end = round(total * ends / whole)
        shares.append(end - done)
        done = end
    return shares
