"""What can go wrong between a client and a Winnow server; every message is fit to show, none holds the API key.

    WinnowClientError             all of them
    ├── ConnectionFailed          no answer: refused, reset, or cut off
    ├── TimedOut                  nothing came for longer than the client's timeout
    ├── StreamBroken              a stream ended before its answer was whole
    ├── UnreadableAnswer          a success that is not what Winnow sends: is it Winnow that answers there?
    └── RefusedByServer           an error body, or an error status without one
        ├── InvalidRequest        the request has to be changed; `param` names the field
        │   ├── Unsupported       a field that the server would not honour
        │   ├── ContextLengthExceeded
        │   └── ModelNotFound
        ├── InvalidKey            no API key, or one the server does not know
        ├── Overloaded            the queue is full; `retry_after` says how long to stay away
        └── ServerError           the server's fault
            ├── NoScoredCandidate
            ├── EngineDead
            ├── ShuttingDown
            └── DeadlineExceeded

A request that the wire's types refuse is not sent; it raises the `InvalidRequest` that the server would have answered with.
"""

from __future__ import annotations


class WinnowClientError(Exception):
    """A call that has not brought what it was made for."""

    is_transient: bool = False
    """Whether the same call may succeed later. The clients retry such calls by themselves, a few times."""


class ConnectionFailed(WinnowClientError):
    """No answer: the connection was refused or reset, or cut off within the answer."""


class TimedOut(WinnowClientError):
    """Nothing came, or could be sent, for longer than the client's timeout."""


class StreamBroken(WinnowClientError):
    """A stream ended before its answer was whole; the pieces yielded so far are no answer."""


class UnreadableAnswer(WinnowClientError):
    """A success whose body is not what Winnow sends."""


class RefusedByServer(WinnowClientError):
    """The server answered with an error.

    Attributes:
        message: what went wrong, in words.
        status: the HTTP status; None for an error inside a stream, and for a request that was not sent.
        code: the machine-readable reason, as listed in `docs/api.md`; None if there is none.
        param: the request's field at fault, if one is.
        request_id: the id under which the server's log has the call.
        retry_after: seconds to stay away, if the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after
        facts = {"status": status, "code": code, "param": param, "request id": request_id}
        self.add_note(", ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None) or "not sent")


class InvalidRequest(RefusedByServer):
    """The request has to be changed; `param` names the field."""


class Unsupported(InvalidRequest):
    """The request has a field that the server would not honour."""


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the model's context; the message has the numbers."""


class ModelNotFound(InvalidRequest):
    """The server serves another model."""


class InvalidKey(RefusedByServer):
    """The request showed no API key, or one that the server does not know."""


class Overloaded(RefusedByServer):
    """The server's queue is full; `retry_after` says how many seconds to stay away."""


class ServerError(RefusedByServer):
    """The server failed."""


class NoScoredCandidate(ServerError):
    """None of the candidates could be sampled and scored."""


class EngineDead(ServerError):
    """An engine's process died; the server is stopping."""


class ShuttingDown(ServerError):
    """The server takes no new requests, or gave this one up, because it is stopping."""


class DeadlineExceeded(ServerError):
    """The server did not answer within its own limit."""


BY_CODE: dict[str, type[RefusedByServer]] = {
    "invalid_request": InvalidRequest,
    "invalid_json": InvalidRequest,
    "invalid_messages": InvalidRequest,
    "invalid_sampling": InvalidRequest,
    "unsupported": Unsupported,
    "context_length_exceeded": ContextLengthExceeded,
    "model_not_found": ModelNotFound,
    "invalid_api_key": InvalidKey,
    "overloaded": Overloaded,
    "internal_error": ServerError,
    "no_scored_candidate": NoScoredCandidate,
    "engine_dead": EngineDead,
    "shutting_down": ShuttingDown,
    "deadline_exceeded": DeadlineExceeded,
}
"""The one table from the wire's codes to exceptions."""


def kind_of(code: str | None, status: int | None) -> type[RefusedByServer]:
    """The exception for an error with this code; without a known one, as from a proxy, the status decides."""
    if code in BY_CODE:
        return BY_CODE[code]
    match status:
        case 401:
            return InvalidKey
        case 429:
            return Overloaded
        case int() if status >= 500:
            return ServerError
    return RefusedByServer
