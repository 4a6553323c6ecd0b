"""Every exception Winnow raises on purpose.

WinnowError
├── RequestError            the caller's mistake; the message says what to change
│   ├── DialogError         the messages cannot be rendered
│   ├── SamplingError       a sampling parameter cannot be honoured
│   └── PromptTooLong       prompt and answer do not fit the context
├── CheckpointError         a checkpoint is missing, damaged or of the wrong kind; found at start-up
│   └── DoesNotFit          the engines need more memory than there is; the message has the arithmetic
├── CandidateFailed         one candidate could not be sampled or scored; its siblings go on
├── CandidateStopped        one candidate was stopped on its caller's wish
├── EngineDead              an engine's process is gone or hangs; nothing can be served any more
├── ShuttingDown            the service ends on purpose and takes, or finishes, nothing more
└── NoScoredCandidate       every candidate failed or got no valid score; there is no winner to return
"""

from __future__ import annotations

from collections.abc import Iterator


class WinnowError(Exception):
    """Root of the tree."""


class RequestError(WinnowError):
    """The caller's mistake. `param` names the request field at fault; `code` is the machine-readable reason."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class DialogError(RequestError):
    """The messages cannot be rendered; `index` is the offending one, None when the whole list is at fault."""

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


class CheckpointError(WinnowError):
    """A checkpoint is missing, damaged, of the wrong kind, or failed its canary."""


class CandidateStopped(WinnowError):
    """A candidate was stopped through its `Handle`; `tokens` had been sampled by then."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"stopped after {tokens} tokens")
        self.tokens = tokens


class DoesNotFit(CheckpointError):
    """The engines need more memory than there is; the message, of several lines, has the arithmetic."""


class CandidateFailed(WinnowError):
    """One candidate could not be sampled or scored."""


class EngineDead(WinnowError):
    """An engine's process is gone, or hangs."""


class ShuttingDown(WinnowError):
    """The service ends on purpose."""


class NoScoredCandidate(WinnowError):
    """Every candidate failed or got no valid score."""


def gravest(group: ExceptionGroup[WinnowError]) -> WinnowError:
    """Of several failures of one piece of work, the one that explains the others: an engine's death, else the first."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, EngineDead)), errors[0])


def _leaves(group: ExceptionGroup[WinnowError]) -> Iterator[WinnowError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
