"""Wire requests as what the pipeline takes: a prompt, how to sample, how many candidates, how many answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.clients.wire import ChatMessage, ChatRequest
from winnow.models.errors import PromptTooLong, RequestError, SamplingError
from winnow.models.policy import Sampling
from winnow.models.types import CombinerName, Message, Prompt
from winnow.server.http.errors import UnknownModel
from winnow.server.service import Service


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a chat request asks for, checked: nothing after this can fail for the caller's fault.

    `candidates` is K; `n` of them are returned.
    """

    prompt: Prompt
    sampling: Sampling
    candidates: int
    n: int
    combiner: CombinerName
    with_texts: bool


def plan(request: ChatRequest, service: Service) -> Plan:
    """Check `request` against the server's limits and render its dialog.

    Raises:
        RequestError: what the caller has to change.
    """
    require_model(request.model, service)
    candidates, n = _counts(request, service)
    prompt = render(request.messages, request.options.is_safety, service)
    return Plan(
        prompt=prompt,
        sampling=_sampling(request, service, len(prompt)),
        candidates=candidates,
        n=n,
        combiner=request.options.combiner or service.settings.combiner,
        with_texts=bool(request.options.return_candidates),
    )


def require_model(model: str, service: Service) -> None:
    """Check that `model` is the served one.

    Raises:
        UnknownModel: it is not.
    """
    if model != service.settings.model_name:
        raise UnknownModel(
            f"the model does not exist here; this server serves {service.settings.model_name!r}", "model"
        )


def render(messages: Sequence[ChatMessage], is_safety: bool | None, service: Service) -> Prompt:
    """Render a dialog, tagged as the request says or else by the tagger.

    Raises:
        DialogError: the dialog breaks the template's rules.
    """
    dialog = [Message("system" if message.role == "developer" else message.role, message.text) for message in messages]
    tagged = service.tagger(dialog) if is_safety is None else is_safety
    return service.template.render(dialog, is_safety=tagged)


def _counts(request: ChatRequest, service: Service) -> tuple[int, int]:
    """K and n. At temperature 0 all candidates would be equal, so K is 1 unless the request insists."""
    settings = service.settings
    greedy = request.temperature == 0
    n = request.n or 1
    candidates = request.candidates or (1 if greedy else settings.candidates)
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


def _sampling(request: ChatRequest, service: Service, prompt_tokens: int) -> Sampling:
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
    )


def _max_tokens(request: ChatRequest, service: Service, prompt_tokens: int) -> int:
    room = service.context - prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens; the context holds {service.context}, the answer included",
            "messages",
        )
    if request.token_limit is None:
        return min(service.settings.max_tokens, room)
    if request.token_limit > room:
        raise PromptTooLong(
            f"the prompt's {prompt_tokens} tokens and an answer of {request.token_limit} exceed the context of "
            f"{service.context}",
            "max_completion_tokens" if request.max_completion_tokens else "max_tokens",
        )
    return request.token_limit


def _logit_bias(request: ChatRequest, service: Service) -> dict[int, float]:
    bias: dict[int, float] = {}
    for token, value in (request.logit_bias or {}).items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < service.policy.vocabulary):
            raise SamplingError(
                f"logit_bias: keys are token ids from 0 to {service.policy.vocabulary - 1}", "logit_bias"
            )
        bias[int(token)] = value
    return bias
