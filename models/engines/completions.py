"""A policy on other vLLM servers: token ids over `/v1/completions`, token ids back.

Prompts are rendered and tokenised here, and answers spelled here, as for an engine of this process: with the same seed
and weights the candidates are the same. A candidate may be sampled again elsewhere if its server fails, because its
seed makes it the same; without a seed, as long as nothing of it has been used. One that may be stopped, or is read at
checkpoints, is streamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from winnow.models.engines.addresses import Address
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import read_json
from winnow.models.engines.model_server import Broken, Endpoint, Malformed, RemoteEngine, Transient
from winnow.models.engines.remote import RemoteModel, in_words, most_bytes, read_models
from winnow.models.engines.sampled import AnswerReader, CheckpointWatcher, Sampled, end_ids, engine_stops
from winnow.models.engines.shape import Shape
from winnow.models.engines.stopping import stoppable
from winnow.models.errors import CheckpointError
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt, TokenLogprob

PATH, MODELS, TOKENIZE = "/v1/completions", "/v1/models", "/tokenize"
TRIAL_TEXT = "The quick brown fox, 1234567890: (naïve) tokens?"
"""A text that two tokenizers hardly spell alike by accident."""


def start_policy(options: EngineOptions, remote: RemoteModel, tokenizer: Tokenizer) -> RemotePolicy:
    """Return the policy of servers that have been found to sample by token ids, with this `tokenizer`.

    Raises:
        CheckpointError: one does not, or has another tokenizer, or a shorter context than is asked for.
    """
    told = remote.context or options.context
    if told is None:
        raise CheckpointError("policy: its server does not tell its context (max_model_len); set policy.context")
    if options.context and remote.context and options.context > remote.context:
        raise CheckpointError(
            f"policy: a context of {options.context} is asked for, but its server was started with max_model_len "
            f"{remote.context}"
        )
    for address in remote.present:
        _require_policy(remote, address, tokenizer)
    folder = Path(options.checkpoint)
    generation = folder / "generation_config.json"
    ends = end_ids(read_json(generation, "policy") if generation.is_file() else {}, tokenizer.eos_id)
    vocabulary = Shape.of(read_json(folder / "config.json", "policy")).vocabulary
    reader = AnswerReader(tokenizer, ends)
    return RemotePolicy(options.name, remote, min(told, options.context or told), vocabulary, reader)


def _require_policy(remote: RemoteModel, address: Address, tokenizer: Tokenizer) -> None:
    """Sample a token, and have a text tokenised, as far as the server does that."""
    url = address.url
    trial = tokenizer.encode(TRIAL_TEXT)
    try:
        with httpx.Client(**remote.link.client_options(address)) as client:
            answer = client.post(url + PATH, json=_trial(remote, trial[:2]))
            tokenised = client.post(
                url + TOKENIZE, json={"model": remote.name, "prompt": TRIAL_TEXT, "add_special_tokens": False}
            )
    except httpx.HTTPError as error:
        raise CheckpointError(f"policy: {url} does not sample: {in_words(error)}") from None
    if answer.status_code != 200:
        raise CheckpointError(f"policy: {url} is no policy: {PATH} has status {answer.status_code}")
    try:
        _completion(answer.json(), trial[:2])
    except (ValueError, RecursionError, Transient, Broken) as problem:
        raise CheckpointError(
            f"policy: {url} does not return token ids ({problem}); it needs a vLLM server of version 0.10.2 or later"
        ) from None
    if tokenised.status_code == 200:
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            if tokenised.json().get("tokens", trial) != trial:
                raise CheckpointError(
                    f"policy: the tokenizer of {url} is not the one given; name the served model's in "
                    "--policy-tokenizer"
                )


def _trial(remote: RemoteModel, ids: Sequence[int]) -> dict[str, Any]:
    return {"model": remote.name, "prompt": list(ids), "max_tokens": 1, "temperature": 1.0, "return_token_ids": True}


@dataclass(slots=True)
class _Sampling:
    """One candidate that is being sampled: what its server is asked, and what of it has arrived."""

    prompt: Prompt
    body: dict[str, Any]
    alternatives: int | None
    watch: CheckpointWatcher | None = None
    ids: list[int] = field(default_factory=list)

    @property
    def may_repeat(self) -> bool:
        """Whether another server may sample it again."""
        return self.body["seed"] is not None or not (self.watch and self.watch.passed)

    @property
    def most_bytes(self) -> int:
        """Size of the largest answer: the prompt's ids, and each token, its log-probability and their alternatives."""
        listed = 2 if self.alternatives is None else self.alternatives + 4
        return most_bytes(len(self.prompt.token_ids) + self.body["max_tokens"] * listed)


class RemotePolicy(RemoteEngine):
    """Samples candidates on vLLM servers; a `ServedPolicy`."""

    def __init__(self, name: str, remote: RemoteModel, context: int, vocabulary: int, reader: AnswerReader) -> None:
        super().__init__(name, remote, context)
        self.vocabulary = vocabulary
        self._reader = reader

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        """Sample one candidate; see `Policy.sample`.

        Raises:
            ModelUnavailable: no server answers for now.
        """
        asked = _Sampling(prompt, self._body(prompt, sampling, index), sampling.alternatives)
        if not handle:
            sampled = await self.server.call(functools.partial(self._whole, asked))
        else:
            if handle.checkpoints:
                text_of = functools.partial(self._reader.unfinished_text, prompt, sampling)
                asked.watch = CheckpointWatcher(handle, text_of)
            streamed = self.server.call(functools.partial(self._streamed, asked), lambda: asked.may_repeat)
            sampled = await stoppable(streamed, handle, lambda: len(asked.ids))
        return self._reader.candidate(prompt, sampling, index, sampled)

    async def _whole(self, asked: _Sampling, server: Endpoint) -> Sampled:
        started = asyncio.get_running_loop().time()
        answer = await server.once("POST", PATH, asked.body, asked.most_bytes)
        choice = _completion(answer, asked.prompt.token_ids)
        ids, finish_reason = choice["token_ids"], choice["finish_reason"]
        if finish_reason not in ("stop", "length"):
            raise Transient(f"it ended an answer with {_word(finish_reason)}", is_internal=finish_reason != "abort")
        logprobs = None if asked.alternatives is None else _logprobs(choice, asked.alternatives)
        seconds = asyncio.get_running_loop().time() - started
        return Sampled(self._ended(ids, choice), finish_reason, seconds, logprobs)

    async def _streamed(self, asked: _Sampling, server: Endpoint) -> Sampled:
        started = asyncio.get_running_loop().time()
        asked.ids = []
        logprobs: list[TokenLogprob] | None = None if asked.alternatives is None else []
        last: dict[str, Any] = {}
        async with contextlib.aclosing(server.events(PATH, {**asked.body, "stream": True})) as events:
            async for event in events:
                if isinstance(event, dict) and event.get("choices") == []:
                    continue  # the usage
                last = _completion(event, asked.prompt.token_ids)
                asked.ids += last["token_ids"]
                if logprobs is not None and asked.alternatives is not None:
                    logprobs += _logprobs(last, asked.alternatives)
                if asked.watch:
                    asked.watch(asked.ids, is_finished=last["finish_reason"] is not None)
        finish_reason = last.get("finish_reason")
        if finish_reason not in ("stop", "length"):
            raise Transient(f"it ended an answer with {_word(finish_reason)}", is_internal=finish_reason != "abort")
        seconds = asyncio.get_running_loop().time() - started
        return Sampled(self._ended(asked.ids, last), finish_reason, seconds, logprobs)

    def _ended(self, ids: list[int], choice: dict[str, Any]) -> list[int]:
        """Return the ids; one that ended the answer there, but is none of the end ids here, is replaced by EOS."""
        reason = choice.get("stop_reason")
        is_other = isinstance(reason, int) and ids and ids[-1] == reason and reason not in self._reader.end_ids
        return [*ids[:-1], self._reader.tokenizer.eos_id] if is_other else ids

    def _body(self, prompt: Prompt, sampling: Sampling, index: int) -> dict[str, Any]:
        """Return the request for candidate `index`; every parameter is given, whatever the server's defaults are."""
        logprobs = {} if sampling.alternatives is None else {
            "logprobs": sampling.alternatives, "return_tokens_as_token_ids": True
        }  # fmt: skip
        bias = {str(token): value for token, value in sampling.logit_bias.items()}
        return {
            "model": self.remote.name,
            "prompt": list(prompt.token_ids),
            "max_tokens": sampling.max_tokens,
            "min_tokens": sampling.min_tokens,
            "ignore_eos": sampling.ignore_eos,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "stop": engine_stops(prompt, sampling),
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": None if sampling.seed is None else candidate_seed(sampling.seed, index),
            "return_token_ids": True,
            **({"logit_bias": bias} if bias else {}),
            **logprobs,
        }

    async def probe(self, server: Endpoint) -> None:
        """Return if the server serves the same model, and samples with it; see `ModelServer`."""
        answer = await server.once("GET", MODELS)
        try:
            found = read_models(self.remote.link, answer, self.remote.name)
        except ValueError as problem:
            raise Broken(f"it {problem}") from None
        if not self.remote.same_as(found):
            raise Broken("another model is served there now; start Winnow again if that is meant")
        ids = self._reader.tokenizer.encode(TRIAL_TEXT)[:2]
        _completion(await server.once("POST", PATH, _trial(self.remote, ids)), ids)


def _completion(answer: Any, prompt: Sequence[int]) -> dict[str, Any]:
    """Return the only choice of an answer, or of a part of one, which has token ids.

    Raises:
        Malformed: it has another form.
        Broken: it continues other ids than `prompt`.
        Transient: it is the server's own report of an error.
    """
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise Transient("it reports an error within an answer", is_internal=True)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Malformed("it answers with another form than completions have")
    choice: dict[str, Any] = choices[0]
    ids, given = choice.get("token_ids"), choice.get("prompt_token_ids")
    if not isinstance(ids, list) or not all(isinstance(one, int) and one >= 0 for one in ids):
        raise Malformed("it returns no token ids")
    if given is not None and given != list(prompt):
        raise Broken("it does not continue the token ids that it is sent")
    choice.setdefault("finish_reason", None)
    return choice


def _word(value: Any) -> str:
    return value if isinstance(value, str) and value.isalpha() and len(value) < 20 else "no reason"


def _logprobs(choice: dict[str, Any], alternatives: int) -> list[TokenLogprob]:
    """Return the log-probabilities of a choice's tokens, which are named by their ids.

    Raises:
        Malformed: they have another form.
    """
    found = choice.get("logprobs")
    try:
        assert isinstance(found, dict)
        places = zip(choice["token_ids"], found["token_logprobs"], found["top_logprobs"], strict=True)
        return [_place(token, float(logprob), top, alternatives) for token, logprob, top in places]
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("its log-probabilities have another form than completions have") from None


def _place(token: int, logprob: float, top: dict[str, float], alternatives: int) -> TokenLogprob:
    """Return one place. vLLM lists the sampled token first, and then the others by rank."""
    ranked = [(int(name.removeprefix("token_id:")), float(value)) for name, value in top.items()]
    others = [one for one in ranked if one[0] != token]
    if len(others) < alternatives:  # the sampled token is one of the likeliest
        rank = sum(value > logprob for _, value in others)
        others.insert(rank, (token, logprob))
    return TokenLogprob(token, logprob, tuple(others[:alternatives]))
