"""A backend: what it is asked for, what it returns, and its error if every candidate failed."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from winnow.models.errors import NoScoredCandidate
from winnow.models.types import Failure, Selection
from winnow.server.pipeline.request import Request


class Answered(NamedTuple):
    """A selection, and the number of tokens of its rendered prompt."""

    selection: Selection
    prompt_tokens: int


class Backend(Protocol):
    """Samples and scores one request."""

    async def __call__(self, request: Request, first: int = 0) -> Answered:
        """Return the selection for `request`, whose candidates are numbered from 0.

        With `first` they are further candidates of a prompt that has that many already.

        Raises:
            RequestError: the request itself is at fault.
            NoScoredCandidate: every candidate failed.
            EngineDead, ModelUnavailable, RunError: the backend cannot answer any more.
        """
        ...


def all_failed(request: Request, reason: str) -> NoScoredCandidate:
    """Return the error for a request all of whose candidates failed for one `reason`."""
    return NoScoredCandidate(reason, tuple(Failure(index, reason) for index in range(request.candidates)))
