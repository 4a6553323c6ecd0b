"""The Python client of Winnow, the wire's types (`schema`) and the terminal `chat`. The client needs httpx and
pydantic only.

    from winnow.clients import Answer, Client, Piece, Progress

    with Client("http://127.0.0.1:8000/v1") as client:
        answer = client.answer("What is the capital of France?", candidates=8)
        print(answer.text, answer.winner.combined, f"{len(answer.failed)} failed")
        for event in client.stream("And of Spain?"):
            match event:
                case Progress(scored=scored, candidates=k): print(f"{scored}/{k}")
                case Piece(text=text): print(text, end="")
                case Answer(): print(event.report.timings_ms.total)

`AsyncClient` is the same for asyncio. `winnow.clients.errors` has the exceptions.
"""

from winnow.clients.answers import Answer, Event, Piece
from winnow.clients.async_client import AsyncClient
from winnow.clients.calls import Dialog, Options
from winnow.clients.client import Client
from winnow.clients.errors import (
    ConnectionFailed,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    InvalidKey,
    InvalidRequest,
    LeaseExpired,
    ModelNotFound,
    NoScoredCandidate,
    NotStored,
    Overloaded,
    PolicyUnavailable,
    RefusedByServer,
    RewardModelUnavailable,
    RoleMissing,
    ServerError,
    ShuttingDown,
    StoreUnavailable,
    StreamBroken,
    TimedOut,
    UnreadableAnswer,
    Unsupported,
    UnusableEnvironment,
    WinnowClientError,
)
from winnow.clients.schema import Progress

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ConnectionFailed",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "Dialog",
    "EngineDead",
    "Event",
    "InvalidKey",
    "InvalidRequest",
    "LeaseExpired",
    "ModelNotFound",
    "NoScoredCandidate",
    "NotStored",
    "Options",
    "Overloaded",
    "Piece",
    "PolicyUnavailable",
    "Progress",
    "RefusedByServer",
    "RewardModelUnavailable",
    "RoleMissing",
    "ServerError",
    "ShuttingDown",
    "StoreUnavailable",
    "StreamBroken",
    "TimedOut",
    "UnreadableAnswer",
    "Unsupported",
    "UnusableEnvironment",
    "WinnowClientError",
]
