"""The whole exception tree of the server and the command line.

WinnowError
├── RequestError            the caller's mistake; the message says what to change
│   ├── DialogError         the messages cannot be rendered
│   ├── SamplingError       a sampling parameter cannot be honoured
│   ├── PromptTooLong       prompt and answer do not fit the context
│   ├── UnknownModel        the request names a model that is not served
│   ├── NotStored           the request names something that is not in the store
│   └── LeaseExpired        an annotator's lease of a pair is over
├── BadLine                 an input line without a usable prompt
├── SettingsError           a setting is unknown or has a value that cannot be used
├── CheckpointError         a checkpoint is missing, damaged or of the wrong kind; found at start-up
│   └── DoesNotFit          the engines need more memory than there is; the message has the arithmetic
├── CheckFailed             `winnow check`: a served reward model is not its checkpoint, or is no reward model
├── NoCalibration           `winnow rm calibrate`: the answers do not say what a score means
├── RunError                an offline run cannot begin, go on, or be read
│   └── AnotherRun          a folder has the unfinished work of another run
├── GainsError              a table of expected gains is missing, damaged, or of other models
├── StoreError              the store cannot be used for now, or not at all
├── CandidateFailed         one candidate could not be sampled or scored; its siblings go on
├── CandidateStopped        one candidate was stopped at its caller's request
├── NoScoredCandidate       no candidate has a valid score; there is no winner to return
├── EngineDead              an engine's process has died or hangs; it answers nothing any more
├── ModelUnavailable        a remote reward model does not answer for now; the service lives on
│   └── PolicyUnavailable   so does a remote policy
├── ShuttingDown            the service is stopping; it takes no new requests and may cancel those in flight
├── Overloaded              neither room nor a place in the queue is left
├── DeadlineExceeded        the request was not answered within the server's limit
├── ClientGone              the client closed the connection before its answer was ready
└── ConnectionRefused       the request was refused before its route was reached
    ├── InvalidKey          it shows no valid API key
    ├── TooManyHeaders      it has more headers than the server reads
    ├── HeadTooLarge        its request line and headers are larger than the server reads
    ├── UntrustedHost       its Host header is not a trusted one
    └── ForeignOrigin       a web page of another origin sent it

The clients and the load tester have trees of their own, `winnow.clients.errors` and `winnow.loadtests.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from winnow.models.types import Failure

StoreFault = Literal["full", "locked", "corrupt", "unreachable", "unusable"]
"""Reason of a store that takes nothing: a full disk, another process that holds it, damage, no answer, or else."""


class WinnowError(Exception):
    """Root of the tree."""


class RequestError(WinnowError):
    """The caller's mistake. `param` names the request field at fault; `code` is the machine-readable reason."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class DialogError(RequestError):
    """The messages cannot be rendered; `index` is the offending one, None if the whole list is at fault."""

    code = "invalid_messages"

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason if index is None else f"messages[{index}]: {reason}", "messages")
        self.index = index


class SamplingError(RequestError):
    """A sampling parameter cannot be honoured."""

    code = "invalid_sampling"


class PromptTooLong(RequestError):
    """Prompt and answer together exceed the context."""

    code = "context_length_exceeded"


class UnknownModel(RequestError):
    """The request names a model that is not served."""

    code = "model_not_found"


class NotStored(RequestError):
    """The request names something that is not in the store, or is another caller's."""

    code = "not_stored"


class LeaseExpired(RequestError):
    """An annotator's lease of a pair is over: used, or expired with the pair in others' hands."""

    code = "lease_expired"

    def __init__(self) -> None:
        super().__init__("this pair is not held any more; ask for the next one", "lease")


class BadLine(WinnowError):
    """An input line without a usable prompt; `code` is the machine-readable reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SettingsError(WinnowError):
    """A setting is unknown or cannot be used; the message names it and a value that would do."""


class CheckpointError(WinnowError):
    """A checkpoint is missing, damaged, of the wrong kind, or failed its sanity check."""


class DoesNotFit(CheckpointError):
    """The engines need more memory than there is; the message, of several lines, has the arithmetic."""


class CheckFailed(WinnowError):
    """A served reward model differs from its checkpoint, scores every answer alike, or fails its sanity check."""


class NoCalibration(WinnowError):
    """Labelled answers do not say how a reward model's score becomes a probability; the message says why."""


class RunError(WinnowError):
    """An offline run cannot begin, go on, or be read; the message says why and what would help."""


class AnotherRun(RunError):
    """A folder has the unfinished work of another run, which this one cannot go on with."""


class GainsError(WinnowError):
    """A table of expected gains cannot be used or written; the message says why and how to make one."""


class StoreError(WinnowError):
    """The store cannot be used; the message says why. `reason` is one of a few words, as the metrics have it."""

    def __init__(self, reason: StoreFault, message: str) -> None:
        super().__init__(message)
        self.reason: StoreFault = reason


class CandidateFailed(WinnowError):
    """One candidate could not be sampled or scored."""


class CandidateStopped(WinnowError):
    """A candidate was stopped through its `CandidateHandle`; `tokens` had been sampled by then."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"stopped after {tokens} tokens")
        self.tokens = tokens


class NoScoredCandidate(WinnowError):
    """No candidate has a valid score; `failures` lists why, a candidate each, where that is known."""

    def __init__(self, message: str, failures: tuple[Failure, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class EngineDead(WinnowError):
    """An engine's process has died, or hangs."""


class ModelUnavailable(WinnowError):
    """A remote reward model does not answer for now; `retry_after` is the time to wait before trying again, in s."""

    code = "reward_model_unavailable"

    def __init__(self, name: str, reason: str, retry_after: int = 5) -> None:
        super().__init__(f"the {self._model(name)} is not available: {reason}")
        self.retry_after = retry_after

    def _model(self, name: str) -> str:
        return f"{name} reward model"


class PolicyUnavailable(ModelUnavailable):
    """A remote policy does not answer for now."""

    code = "policy_unavailable"

    def _model(self, name: str) -> str:
        return name


def unavailable(name: str, reason: str, retry_after: int = 5) -> ModelUnavailable:
    """Return the error of the engine called `name`."""
    kind = PolicyUnavailable if name == "policy" else ModelUnavailable
    return kind(name, reason, retry_after)


class ShuttingDown(WinnowError):
    """The service is stopping."""


class Overloaded(WinnowError):
    """The server and its queue are full; `retry_after` is the time to wait before trying again, 1 to 60 s."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is full; try again in {retry_after} s")
        self.retry_after = retry_after


class DeadlineExceeded(WinnowError):
    """The request was not answered within the server's limit."""


class ClientGone(WinnowError):
    """The client closed the connection before its answer was ready; no response can be sent."""


class ConnectionRefused(WinnowError):
    """The request was refused before its route was reached."""


class InvalidKey(ConnectionRefused):
    """The request shows no valid API key."""


class RoleMissing(ConnectionRefused):
    """The request's API key is valid, but not for this route."""


class TooManyHeaders(ConnectionRefused):
    """The request has more headers than the server reads."""


class HeadTooLarge(ConnectionRefused):
    """The request line and headers are larger than the server reads."""


class UntrustedHost(ConnectionRefused):
    """The request's Host header is not among the trusted ones."""


class ForeignOrigin(ConnectionRefused):
    """A web page of another origin sent the request."""


def root_cause(group: ExceptionGroup[WinnowError]) -> WinnowError:
    """Return the failure that explains the group: an engine's death if there is one, else the first."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, EngineDead)), errors[0])


def _leaves(group: ExceptionGroup[WinnowError]) -> Iterator[WinnowError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
