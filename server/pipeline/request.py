"""A checked request, the same for HTTP bodies, offline lines and batch lines.

`RequestOptions` holds a caller's options and `Defaults` the values for those left out. `resolve` checks both against
the limits. K is decided here; `Admission` may grant fewer candidates under load. Errors name the field of the wire.
`winnow.server.pipeline.rendering` renders a request for the engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from winnow.clients.schema import UNSEEDED, WAVE, AdaptiveOptions, ChatMessage, ChatRequest, CompletionRequest
from winnow.models.errors import RequestError, SamplingError
from winnow.models.gains import ADVICE
from winnow.models.sampling import Sampling
from winnow.models.types import CombinerName, Message
from winnow.server.pipeline.early_stopping import NEVER, EarlyRejection, EarlyStopping
from winnow.server.pipeline.waves import Waves

Messages = tuple[Message, ...]


def messages_of(messages: Sequence[ChatMessage]) -> Messages:
    """Return the messages of a body; `developer` means system."""
    return tuple(
        Message("system" if message.role == "developer" else message.role, message.text) for message in messages
    )


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that no template renders: a text, or token ids; not empty."""

    content: str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A caller's options, apart from the prompt; None takes the default. Ranges are those of `winnow.clients.schema`.

    `candidates` is K, and `least` the smallest K accepted under load. `adaptive` False asks for all K at once.
    `candidates_field` and `max_tokens_field`
    name the wire's field in errors, where it has two names for one thing.
    """

    candidates: int | None = None
    least: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop: tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    seed: int | None = None
    alternatives: int | None = None
    combiner: CombinerName | None = None
    is_safety: bool | None = None
    merge_turns: bool | None = None
    deadline_ms: float | None = None
    accept_reward: float | None = None
    early_rejection: EarlyRejection | None = None
    adaptive: Waves | Literal[False] | None = None
    candidates_field: str = "best_of_n.candidates"
    max_tokens_field: str = "max_tokens"

    @classmethod
    def of(cls, body: CompletionRequest) -> RequestOptions:
        """Return the options of a request body."""
        early, adaptive = body.options.early_rejection, body.options.adaptive
        has_new_limit = isinstance(body, ChatRequest) and body.max_completion_tokens and not body.max_tokens
        return cls(
            candidates=body.candidates,
            least=body.options.least,
            n=body.n,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            max_tokens=body.token_limit,
            min_tokens=body.min_tokens or None,
            ignore_eos=body.ignore_eos or None,
            stop=body.stop_strings or None,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=None if body.repetition_penalty == 1 else body.repetition_penalty,
            logit_bias=body.logit_bias or None,
            seed=None if body.seed == UNSEEDED else body.seed,
            alternatives=body.alternatives,
            combiner=body.options.combiner,
            is_safety=body.options.is_safety,
            merge_turns=body.options.merge_turns,
            deadline_ms=body.options.deadline_ms,
            accept_reward=body.options.accept_reward,
            early_rejection=EarlyRejection(tuple(early.at_tokens), early.share) if early else None,
            adaptive=waves_of(adaptive) if isinstance(adaptive, AdaptiveOptions) else adaptive,
            candidates_field="best_of" if body.best_of else "best_of_n.candidates",
            max_tokens_field="max_completion_tokens" if has_new_limit else "max_tokens",
        )


def waves_of(options: AdaptiveOptions) -> Waves:
    """Return the waves that a body, or a setting, asks for."""
    return Waves(options.start or WAVE, options.step or WAVE, options.stop.reward, options.stop.gain)


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults for the options that a caller leaves out, and the largest K of a request.

    `candidates` is K; `least` is the smallest K that the load may shrink it to, K itself if it may not. `knows_gains`
    says whether waves may end by the expected gain.
    """

    candidates: int
    least: int
    max_candidates: int
    temperature: float
    top_p: float
    max_tokens: int
    combiner: CombinerName
    adaptive: Waves | None = None
    knows_gains: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. It can still exceed the served model's context or vocabulary, which `PromptRenderer` checks.

    `candidates` is K, out of the `requested`; `least` is the smallest K accepted under load; `n` are returned.
    They are drawn in `waves`, or all at once. `is_safety` None lets the classifier decide. `sampling.max_tokens` is the
    caller's own limit, or the default, which is cut to the context. `options` are the caller's, unchanged.
    `sampling_dialog` replaces the dialog for sampling only (context distillation, ghost attention).
    """

    prompt: Messages | RawPrompt
    requested: int
    candidates: int
    least: int
    n: int
    combiner: CombinerName
    sampling: Sampling
    options: RequestOptions
    is_safety: bool | None = None
    early_stopping: EarlyStopping = NEVER
    waves: Waves | None = None
    sampling_dialog: Messages | None = None

    @property
    def at_once(self) -> int:
        """The number of candidates that start at once: all K, or the first wave."""
        return next(self.waves.ends(self.candidates)) if self.waves else self.candidates

    @property
    def least_at_once(self) -> int:
        """The fewest that may start at once under load: a first wave is never cut, the later ones may not be drawn."""
        return self.at_once if self.waves else self.least

    @property
    def is_reduced(self) -> bool:
        """Whether K is smaller than requested: at temperature 0 all candidates would be equal."""
        return self.candidates < self.requested

    @property
    def has_options(self) -> bool:
        """Whether the caller set any option besides `is_safety`, so that a refusal may be due to it."""
        return replace(self.options, is_safety=None) != RequestOptions()


def resolve(prompt: Messages | RawPrompt, options: RequestOptions, defaults: Defaults, arrived: float = 0.0) -> Request:
    """Check `options` and fill in the defaults; `arrived` is the request's arrival, an instant of `time.monotonic`.

    Raises:
        RequestError: the caller has to change something; the message says what.
    """
    requested, candidates, n = _counts(options, defaults)
    deadline = None if options.deadline_ms is None else arrived + options.deadline_ms / 1e3
    return Request(
        prompt=prompt,
        requested=requested,
        candidates=candidates,
        least=_least(options, defaults, candidates, n),
        n=n,
        combiner=options.combiner or defaults.combiner,
        sampling=_sampling(options, defaults),
        options=options,
        is_safety=options.is_safety,
        early_stopping=EarlyStopping(deadline, options.accept_reward, options.early_rejection),
        waves=_waves(options, defaults, n),
    )


def _counts(options: RequestOptions, defaults: Defaults) -> tuple[int, int, int]:
    """Return the requested K, the K to sample, and n.

    If the caller names no K, it is the default, or n if that is more. At temperature 0 all candidates would be equal,
    so that one is sampled unless the caller sets K.
    """
    greedy = (defaults.temperature if options.temperature is None else options.temperature) == 0
    n = options.n or 1
    requested = options.candidates or max(n, defaults.candidates)
    candidates = 1 if greedy and not options.candidates else requested
    if greedy and max(candidates, n) > 1:
        raise SamplingError(
            f"at temperature 0 all {max(candidates, n)} candidates would be the same answer; raise temperature, "
            "or ask for 1",
            "temperature",
        )
    if requested > defaults.max_candidates:
        if not options.candidates:
            raise RequestError(f"n ({n}) answers need {n} candidates; the limit here is {defaults.max_candidates}", "n")
        raise RequestError(
            f"{requested} candidates requested; the limit here is {defaults.max_candidates}", options.candidates_field
        )
    if n > candidates:
        raise RequestError(
            f"n ({n}) answers cannot be returned from {candidates} candidates; raise {options.candidates_field}", "n"
        )
    return requested, candidates, n


def _least(options: RequestOptions, defaults: Defaults, candidates: int, n: int) -> int:
    """Return how far K may shrink under load: as the caller says, else as the default does; never below n."""
    may_shrink = defaults.least < defaults.candidates
    least = options.least or (defaults.least if may_shrink else candidates)
    return max(n, min(least, candidates))


def _waves(options: RequestOptions, defaults: Defaults, n: int) -> Waves | None:
    """Return the waves in which K candidates are drawn; None to draw them at once.

    The first has at least the caller's least K, and n. The server's default does not apply to early rejection.
    """
    waves = options.adaptive
    if waves is None and not options.early_rejection:
        waves = defaults.adaptive
    if not waves:
        return None
    if waves.gain is not None and not defaults.knows_gains:
        raise RequestError(
            "adaptive.stop.gain: this server has no table of expected gains for its models; send stop.reward instead, "
            f"or start it with --gains FILE: {ADVICE}",
            "best_of_n.adaptive.stop.gain",
        )
    return replace(waves, start=max(waves.start, options.least or 1, n))


def _sampling(options: RequestOptions, defaults: Defaults) -> Sampling:
    max_tokens, min_tokens = options.max_tokens or defaults.max_tokens, options.min_tokens or 0
    if min_tokens > max_tokens:
        raise SamplingError(
            f"min_tokens ({min_tokens}) is above {options.max_tokens_field} ({max_tokens})", "min_tokens"
        )
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(options.ignore_eos),
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        top_p=options.top_p or defaults.top_p,
        top_k=max(0, options.top_k or 0),
        min_p=options.min_p or 0.0,
        stop=options.stop or (),
        presence_penalty=options.presence_penalty or 0.0,
        frequency_penalty=options.frequency_penalty or 0.0,
        repetition_penalty=options.repetition_penalty or 1.0,
        logit_bias=token_biases(options.logit_bias or {}),
        seed=options.seed,
        alternatives=options.alternatives,
    )


def token_biases(given: Mapping[str, float]) -> dict[int, float]:
    """Return the wire's `logit_bias`, whose keys are texts, by token id.

    Raises:
        SamplingError: a key is not a token id.
    """
    for token in given:
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise SamplingError(f'logit_bias: the key {token[:20]!r} is not a token id, as in "300"', "logit_bias")
    return {int(token): bias for token, bias in given.items()}
