"""Wire requests as what the pipeline takes: a prompt, how to sample, how many candidates, how many answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from winnow.clients.schema import MOST_TOKENS, BestOfNOptions, ChatMessage, ChatRequest, TextRequest
from winnow.models.errors import PromptTooLong, RequestError, SamplingError, UnknownModel
from winnow.models.sampling import Sampling
from winnow.models.types import CombinerName, Message, Prompt
from winnow.server.pipeline.early_stopping import EarlyRejection, EarlyStopping
from winnow.server.service import Service

T = TypeVar("T")
LONG = 20_000
"""Characters from which on a text is tokenised in a thread: the event loop serves others meanwhile."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a request asks for, checked: nothing after this can fail for the caller's fault.

    `candidates` is K, of which `least` will do under load; `n` of them are returned. `dial` says when less than all will do.
    `echo` is the prompt's text if it is to stand before the answer, else empty.
    """

    prompt: Prompt
    sampling: Sampling
    candidates: int
    least: int
    n: int
    combiner: CombinerName
    dial: EarlyStopping
    with_texts: bool
    progress: bool
    echo: str = ""


async def plan(request: ChatRequest | TextRequest, service: Service, arrived: float) -> Plan:
    """Check `request`, which arrived at that instant of `time.monotonic`, against the server's limits and render its prompt.

    A full server refuses it before that.

    Raises:
        RequestError: what the caller has to change.
        Overloaded: there is no room for so many candidates.
    """
    require_model(request.model, service)
    candidates, n = _counts(request, service)
    least, dial = _least(request, service, candidates, n), _dial(request.options, arrived)
    service.admission.require_room(least, deadline=dial.deadline or math.inf)
    if isinstance(request, ChatRequest):
        prompt = await render(request.messages, request.options.is_safety, service)
        echo = ""
    else:
        prompt = await _render_raw(request.text_or_ids, request.options.is_safety, service)
        echo = _echo(request.text_or_ids, service) if request.echo else ""
    return Plan(
        prompt=prompt,
        sampling=_sampling(request, service, len(prompt)),
        candidates=candidates,
        least=least,
        n=n,
        combiner=request.options.combiner or service.settings.combiner,
        dial=dial,
        with_texts=bool(request.options.return_candidates),
        progress=bool(request.options.progress),
        echo=echo,
    )


def require_model(model: str, service: Service) -> None:
    """Check that `model` is the served one.

    Raises:
        UnknownModel: it is not.
    """
    if model != service.settings.model_name and not service.settings.accept_any_model:
        raise UnknownModel(
            f"the model does not exist here; this server serves {service.settings.model_name!r}", "model"
        )


async def render(messages: Sequence[ChatMessage], is_safety: bool | None, service: Service) -> Prompt:
    """Render a dialog, tagged as the request says or else by the tagger.

    Raises:
        DialogError: the dialog breaks the template's rules.
        PromptTooLong: it cannot fit the context.
    """
    dialog = [Message("system" if message.role == "developer" else message.role, message.text) for message in messages]
    length = _require_possible("".join(message.content for message in dialog), service, "messages")

    def run() -> Prompt:
        tagged = service.tagger(dialog) if is_safety is None else is_safety
        return service.template.render(dialog, is_safety=tagged)

    return await _aside(run, length)


async def _render_raw(text_or_ids: str | list[int], is_safety: bool | None, service: Service) -> Prompt:
    if not text_or_ids:
        raise RequestError("the prompt is empty; send a text or token ids", "prompt")
    template = service.template
    if isinstance(text_or_ids, str):
        length = _require_possible(text_or_ids, service, "prompt")
    else:
        length = len(text_or_ids)
        require_tokens(text_or_ids, service, "prompt")
        _room(length, service, "prompt")

    def run() -> Prompt:
        text = text_or_ids if isinstance(text_or_ids, str) else str(template.tokenizer.decode(text_or_ids))
        tagged = service.tagger([Message("user", text)]) if is_safety is None else is_safety
        return template.render_raw(text_or_ids, is_safety=tagged)

    return await _aside(run, length)


async def encode(text: str, service: Service, *, with_bos: bool) -> list[int]:
    """Token ids of a text.

    Raises:
        RequestError: they are more than anybody could send back.
    """
    bos = [service.template.bos_id] if with_bos else []
    if service.template.fewest_tokens(text) <= MOST_TOKENS:
        ids = bos + await _aside(lambda: service.template.encode(text), len(text))
        if len(ids) <= MOST_TOKENS:
            return ids
    raise RequestError(f"the text has more than {MOST_TOKENS} tokens", "prompt")


def _echo(text_or_ids: str | list[int], service: Service) -> str:
    if isinstance(text_or_ids, str):
        return text_or_ids
    return str(service.template.tokenizer.decode(text_or_ids, skip_special_tokens=True))


async def _aside(work: Callable[[], T], length: int) -> T:
    """Do `work` on a text of `length` characters here, or in a thread where it would hold the event loop for long."""
    return await asyncio.to_thread(work) if length > LONG else work()


def _require_possible(text: str, service: Service, param: str) -> int:
    """The length of `text`, which must not be so long that no tokenisation could fit the context."""
    fewest = service.template.fewest_tokens(text.strip())
    if fewest > service.context:
        raise PromptTooLong(
            f"the prompt has at least {fewest} tokens; the context holds {service.context}, the answer included", param
        )
    return len(text)


def require_tokens(ids: Sequence[int], service: Service, param: str) -> None:
    """Check that `ids` are token ids of this vocabulary.

    Raises:
        RequestError: one is not.
    """
    if max(ids, default=0) >= service.policy.vocabulary:
        raise RequestError(f"{param}: token ids are below {service.policy.vocabulary}", param)


def _room(prompt_tokens: int, service: Service, param: str) -> int:
    """Tokens that the context has left for an answer, at least one."""
    room = service.context - prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens; the context holds {service.context}, the answer included", param
        )
    return room


def _counts(request: ChatRequest | TextRequest, service: Service) -> tuple[int, int]:
    """K and n. At temperature 0 all candidates would be equal, so K is 1 unless the request insists."""
    settings = service.settings
    greedy = request.temperature == 0
    n = request.n or 1
    candidates = request.candidates or (1 if greedy else settings.candidates.max)
    asked = "best_of" if request.best_of else "best_of_n.candidates"
    if candidates > settings.max_candidates:
        raise RequestError(
            f"{candidates} candidates asked for; this server's limit is {settings.max_candidates}", asked
        )
    if greedy and max(candidates, n) > 1:
        raise SamplingError(
            f"at temperature 0 all {max(candidates, n)} candidates would be the same answer; raise temperature, or ask for 1",
            "temperature",
        )
    if n > candidates:
        raise RequestError(f"n ({n}) answers cannot be returned from {candidates} candidates; raise {asked}", "n")
    return candidates, n


def _least(request: ChatRequest | TextRequest, service: Service, candidates: int, n: int) -> int:
    """How far K may shrink under load: as the request says, else as the server's range does; never below n."""
    allowed = service.settings.candidates
    least = request.options.least or (allowed.min if allowed.min < allowed.max else candidates)
    return max(n, min(least, candidates))


def _dial(options: BestOfNOptions, arrived: float) -> EarlyStopping:
    early = options.early_rejection
    return EarlyStopping(
        deadline=None if options.deadline_ms is None else arrived + options.deadline_ms / 1e3,
        accept_reward=options.accept_reward,
        early_rejection=EarlyRejection(tuple(early.at_tokens), early.keep) if early else None,
    )


def _sampling(request: ChatRequest | TextRequest, service: Service, prompt_tokens: int) -> Sampling:
    settings = service.settings
    return Sampling(
        max_tokens=_max_tokens(request, service, prompt_tokens),
        temperature=settings.temperature if request.temperature is None else request.temperature,
        top_p=request.top_p or settings.top_p,
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        stop=request.stop_strings,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=_logit_bias(request, service),
        seed=request.seed,
        alternatives=request.alternatives,
    )


def _max_tokens(request: ChatRequest | TextRequest, service: Service, prompt_tokens: int) -> int:
    chat = isinstance(request, ChatRequest)
    room = _room(prompt_tokens, service, "messages" if chat else "prompt")
    if request.token_limit is None:
        return min(service.settings.max_tokens, room)
    if request.token_limit > room:
        raise PromptTooLong(
            f"the prompt's {prompt_tokens} tokens and an answer of {request.token_limit} exceed the context of "
            f"{service.context}",
            "max_tokens" if request.max_tokens else "max_completion_tokens",
        )
    return request.token_limit


def _logit_bias(request: ChatRequest | TextRequest, service: Service) -> dict[int, float]:
    bias: dict[int, float] = {}
    for token, value in (request.logit_bias or {}).items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < service.policy.vocabulary):
            raise SamplingError(
                f"logit_bias: keys are token ids from 0 to {service.policy.vocabulary - 1}", "logit_bias"
            )
        bias[int(token)] = value
    return bias
