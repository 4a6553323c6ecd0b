"""A reward model on another vLLM server: token ids over `/classify`, raw logits back.

The conversation is rendered and tokenised here, as for an engine of this process, so that what people write never
becomes a control token there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from winnow.models.engines.addresses import Address
from winnow.models.engines.base import AnswerReader, EngineOptions, PromptReader, fitting_ids
from winnow.models.engines.model_server import Broken, Endpoint, Malformed, RemoteScorer
from winnow.models.engines.remote import RemoteModel, in_words, read_models
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Prompt

PATH = "/classify"
MOST_TOGETHER = 32
"""Answers in one request."""
MODELS = "/v1/models"
TRIAL_IDS = (0, 1)
"""Ids that every vocabulary has, to try whether a server classifies."""


def start_classify(
    options: EngineOptions, remote: RemoteModel, reader: AnswerReader, labels: Sequence[int | str]
) -> RemoteClassifier:
    """Return the model of a server that has been found to classify; `labels` are the card's, none or two.

    Raises:
        CheckpointError: the server does not classify, has other labels, or a shorter context than is asked for.
    """
    told = remote.context or options.context
    if told is None:
        raise CheckpointError(
            f"{options.name} reward model: its server does not tell its context (max_model_len); set "
            f"{options.name}.context"
        )
    if options.context and remote.context and options.context > remote.context:
        raise CheckpointError(
            f"{options.name} reward model: a context of {options.context} is asked for, but its server was started "
            f"with max_model_len {remote.context}"
        )
    _require_classifier(options.name, remote, len(labels))
    return RemoteClassifier(options.name, remote, min(told, options.context or told), reader)


def _require_classifier(name: str, remote: RemoteModel, labels: int) -> None:
    """Score two tokens, to see whether each server returns as many numbers as the model's card says."""
    for address in remote.present:
        _require_numbers(name, remote, address, labels)


def _require_numbers(name: str, remote: RemoteModel, address: Address, labels: int) -> None:
    url = address.url
    try:
        with httpx.Client(**remote.link.client_options(address)) as client:
            response = client.post(url + PATH, json=_body(remote, [TRIAL_IDS]))
    except httpx.HTTPError as error:
        raise CheckpointError(f"{name} reward model: {url} does not classify: {in_words(error)}") from None
    if response.status_code != 200:
        raise CheckpointError(
            f"{name} reward model: {url} is no classifier: {PATH} has status {response.status_code}; it needs "
            "vllm serve MODEL --runner pooling --convert classify, or a model that is a classifier by itself"
        )
    try:
        (found,) = _numbers(response.json(), 1)
    except (ValueError, RecursionError, Malformed):
        raise CheckpointError(
            f"{name} reward model: {url} is no classifier of vLLM's: {PATH} has other fields"
        ) from None
    if len(found) not in {1, labels or 1}:
        raise CheckpointError(
            f"{name} reward model: {url} returns {len(found)} numbers for an answer; one is needed, or two where its "
            "card has two labels"
        )


@dataclass(slots=True, eq=False)
class _Batch:
    """Answers to one prompt that are sent together; `task` has their scores in order, or why one has none."""

    prompt: Prompt
    task: asyncio.Task[list[float | CandidateFailed]]
    inputs: list[Sequence[int]]
    waiting: int = 0


class RemoteClassifier(RemoteScorer):
    """Scores answers on a `/classify` server; a `ServedRewardModel`.

    Answers to one prompt that are to be scored in the same turn of the event loop go in one request: nothing waits for
    it, and it belongs to one caller, with whom it ends.
    """

    def __init__(self, name: str, remote: RemoteModel, context: int, reader: AnswerReader) -> None:
        super().__init__(name, remote, context)
        self._reader = reader
        self._open: dict[int, _Batch] = {}
        """The batch of each prompt, by its `id`, that answers can still join."""

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`.

        Raises:
            ModelUnavailable: the server does not answer for now.
        """
        ids = await fitting_ids(self._reader, prompt, answer, self.context, self.name)
        batch = self._batch(prompt)
        place = len(batch.inputs)
        batch.inputs.append(ids)
        batch.waiting += 1
        try:
            # Shielded: the others of the batch may still need it.
            found = (await asyncio.shield(batch.task))[place]
        finally:
            batch.waiting -= 1
            if not batch.waiting:
                batch.task.cancel()
        if isinstance(found, CandidateFailed):
            raise found
        return found

    def _batch(self, prompt: Prompt) -> _Batch:
        """Return the batch that answers to `prompt` can join now."""
        batch = self._open.get(id(prompt))
        if batch is None or len(batch.inputs) >= MOST_TOGETHER or batch.task.cancelling() or batch.task.done():
            inputs: list[Sequence[int]] = []
            batch = _Batch(prompt, asyncio.create_task(self._scored(id(prompt), inputs)), inputs)
            batch.task.add_done_callback(lambda _: self._close(id(prompt), inputs))
            self._open[id(prompt)] = batch
        return batch

    def _close(self, key: int, inputs: list[Sequence[int]]) -> None:
        if key in self._open and self._open[key].inputs is inputs:
            del self._open[key]

    async def _scored(self, key: int, inputs: list[Sequence[int]]) -> list[float | CandidateFailed]:
        """Return the scores of a batch, which is closed once others have had a turn to join it."""
        await asyncio.sleep(0)
        self._close(key, inputs)
        try:
            return list(await self._raw_logits(inputs))
        except CandidateFailed as failure:
            if len(inputs) == 1:
                return [failure]
        # One of them is at fault, and the others must not pay for it.
        return list(await asyncio.gather(*(self._alone(ids) for ids in inputs)))

    async def _alone(self, ids: Sequence[int]) -> float | CandidateFailed:
        try:
            return (await self._raw_logits([ids]))[0]
        except CandidateFailed as failure:
            return failure

    async def _raw_logits(self, inputs: Sequence[Sequence[int]]) -> list[float]:
        body = _body(self.remote, inputs)
        return await self.server.post(PATH, body, lambda answer: _raw_logits(answer, len(inputs)))

    async def verdict(self, prompt: Prompt) -> float:
        """Return the raw logit behind the prompt alone; see `GuardModel.verdict`."""
        assert isinstance(self._reader, PromptReader), "only a model of label tokens judges prompts"
        ids = await asyncio.to_thread(self._reader.prompt_ids, prompt, self.context)
        return (await self._raw_logits([ids]))[0]

    async def probe(self, server: Endpoint) -> None:
        """Return if the server serves the same model, and scores with it; see `ModelServer`."""
        link = self.remote.link
        answer = await server.once("GET", MODELS)
        try:
            found = read_models(link, answer, self.remote.name)
        except ValueError as problem:
            raise Broken(f"it {problem}") from None
        if not self.remote.same_as(found):
            raise Broken("another model is served there now; start Winnow again if that is meant")
        _raw_logits(await server.once("POST", PATH, _body(self.remote, [TRIAL_IDS])), 1)


def _body(remote: RemoteModel, inputs: Sequence[Sequence[int]]) -> dict[str, Any]:
    # Raw logits: the server would apply a sigmoid to a one-label classifier, and the pipeline would apply a second one.
    return {"model": remote.name, "input": [list(ids) for ids in inputs], "use_activation": False}


def _raw_logits(answer: Any, count: int) -> list[float]:
    """Return the raw logit of each of the `count` answers that were sent; of two numbers their difference.

    Raises:
        Malformed: as `_numbers` does, or there are more numbers for an answer.
    """
    found = _numbers(answer, count)
    if any(len(numbers) > 2 for numbers in found):
        raise Malformed("it returns more than two numbers for an answer")
    return [numbers[0] - (numbers[1] if len(numbers) == 2 else 0.0) for numbers in found]


def _numbers(answer: Any, count: int) -> list[list[float]]:
    """Return the numbers of each of the `count` answers that were sent, in order; NaN for one that JSON cannot hold.

    Raises:
        Malformed: there is another number of answers, or they are in another order, or are no numbers.
    """
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or len(data) != count or not all(isinstance(one, dict) for one in data):
        raise Malformed("it did not return one score for each answer")
    if any(one.get("index", place) != place for place, one in enumerate(data)):
        raise Malformed("it returned its scores in another order")
    if not all(isinstance(one.get("probs"), list) and one["probs"] for one in data):
        raise Malformed("it returned no score for an answer")
    return [[_number(value) for value in one["probs"]] for one in data]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("it returned a score that is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf
