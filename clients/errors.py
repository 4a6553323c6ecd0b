"""The exceptions of the clients. Every message can be shown to a user, and none contains the API key.

    WinnowClientError             base class
    ├── UnusableEnvironment       a variable for proxies or certificates that the address needs cannot be used
    ├── ConnectionFailed          no answer: refused, reset, or cut off
    ├── TimedOut                  no data for longer than the client's timeout
    ├── StreamBroken              a stream ended before the answer was complete
    ├── UnreadableAnswer          a success that is not what Winnow sends; another server may answer at this address
    └── RefusedByServer           an error body, or an error status without one
        ├── InvalidRequest        the request must be changed; `param` names the field
        │   ├── Unsupported       a field that the server would not honour
        │   ├── ContextLengthExceeded
        │   ├── ModelNotFound
        │   ├── NotStored         nothing by this id is stored for this key
        │   └── LeaseExpired      a pair to annotate is not held any more
        ├── InvalidKey            API key missing or unknown
        ├── RoleMissing           the API key is not for this
        ├── Overloaded            the queue is full; `retry_after` has the seconds to wait
        └── ServerError           a fault of the server
            ├── NoScoredCandidate
            ├── EngineDead
            ├── RewardModelUnavailable
            ├── PolicyUnavailable
            ├── StoreUnavailable
            ├── ShuttingDown
            └── DeadlineExceeded

A request that does not fit the schema is not sent; it raises the `InvalidRequest` that the server would have returned.
"""

from __future__ import annotations


class WinnowClientError(Exception):
    """A call that failed."""

    is_transient: bool = False
    """Whether the same call may succeed later. The clients retry such calls themselves, up to `max_retries` times."""


class UnusableEnvironment(WinnowClientError):
    """An environment variable for proxies or certificates cannot be used; raised as a client is made."""


class ConnectionFailed(WinnowClientError):
    """The connection was refused, reset, or cut off during the answer."""


class TimedOut(WinnowClientError):
    """No data was received, or could be sent, for longer than the client's timeout."""


class StreamBroken(WinnowClientError):
    """A stream ended before the answer was complete; discard the pieces yielded so far."""


class UnreadableAnswer(WinnowClientError):
    """A success whose body is not what Winnow sends."""


class RefusedByServer(WinnowClientError):
    """The server answered with an error.

    Attributes:
        message: the error in words.
        status: HTTP status; None for an error inside a stream, and for a request that was not sent.
        code: machine-readable reason, as listed in docs/api.md; None if there is none.
        param: field of the request at fault; None if there is none.
        request_id: id of the call in the server's log.
        retry_after: seconds to wait, if the server sent them.
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
    """The request must be changed; `param` names the field."""


class Unsupported(InvalidRequest):
    """The request has a field that the server would not honour."""


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the model's context; the message has the numbers."""


class ModelNotFound(InvalidRequest):
    """The server does not serve the requested model."""


class NotStored(InvalidRequest):
    """The server stores nothing by this id for this key, or nothing at all."""


class LeaseExpired(InvalidRequest):
    """An annotator's lease of a pair was used, or has expired and others have the pair; ask for the next one."""


class InvalidKey(RefusedByServer):
    """The request has no API key, or one that the server does not know."""


class RoleMissing(RefusedByServer):
    """The request's API key has none of the roles that this needs."""


class Overloaded(RefusedByServer):
    """The server's queue is full; retry after `retry_after` seconds."""


class ServerError(RefusedByServer):
    """The server failed."""


class NoScoredCandidate(ServerError):
    """No candidate could be sampled and scored."""


class EngineDead(ServerError):
    """The process of an engine died; the server is stopping."""


class RewardModelUnavailable(ServerError):
    """A reward model on another server does not answer for now; retry after `retry_after` seconds."""


class PolicyUnavailable(ServerError):
    """The policy, which is on other servers, does not answer for now; retry after `retry_after` seconds."""


class StoreUnavailable(ServerError):
    """The server's store of completions cannot be used for now; answers go on."""


class ShuttingDown(ServerError):
    """The server is stopping: it rejects new requests, and may have cancelled this one."""


class DeadlineExceeded(ServerError):
    """The server's own time limit for a request was exceeded."""


BY_CODE: dict[str, type[RefusedByServer]] = {
    "invalid_request": InvalidRequest,
    "invalid_json": InvalidRequest,
    "invalid_messages": InvalidRequest,
    "invalid_sampling": InvalidRequest,
    "unsupported": Unsupported,
    "context_length_exceeded": ContextLengthExceeded,
    "model_not_found": ModelNotFound,
    "not_stored": NotStored,
    "lease_expired": LeaseExpired,
    "invalid_api_key": InvalidKey,
    "role_missing": RoleMissing,
    "overloaded": Overloaded,
    "internal_error": ServerError,
    "no_scored_candidate": NoScoredCandidate,
    "engine_dead": EngineDead,
    "reward_model_unavailable": RewardModelUnavailable,
    "policy_unavailable": PolicyUnavailable,
    "store_unavailable": StoreUnavailable,
    "shutting_down": ShuttingDown,
    "deadline_exceeded": DeadlineExceeded,
}
"""The exception for each error code on the wire."""


def kind_of(code: str | None, status: int | None) -> type[RefusedByServer]:
    """Return the exception class for an error; `status` decides if the code is unknown, as from a proxy."""
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
