"""The bodies of the routes by which callers and operators see what a server has recorded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from winnow.clients.schema.base import BranchName, Request, Response


class StoredMessage(Response):
    """A message of the dialog that a recorded completion answers, as it was recorded."""

    id: str
    role: str
    content: str


class StoredMessages(Response):
    """Response of `GET /v1/chat/completions/{id}/messages`: all of them; `has_more` is always false."""

    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


class StoredSelection(Response):
    """A recorded answer in a list.

    `prompt` and `answer` are the beginnings of the last user message and of the winner, `refused` says that a refusal
    was returned in its place. `candidates`, `combined` and `branch` are those of the selection and its winner;
    `annotations` were made of pairs that it is in. Times are seconds since 1970; a null `expires` is never.
    """

    number: int
    id: str
    created: int
    expires: int | None
    model: str
    origin: int
    prompt: str
    answer: str
    refused: bool
    candidates: int
    combined: float
    branch: BranchName
    annotations: int


class StoredSelections(Response):
    """Response of `GET /v1/store/selections`, newest first; `next` is the next page's `before`, null at the end."""

    data: list[StoredSelection]
    next: int | None


class StoredOrigin(Response):
    """The number of an origin, its answers, and the models that made and scored them."""

    origin: int
    answers: int
    policy: str
    safety: str
    helpfulness: str


class StoredExport(Response):
    """An export that was written from the store; `path` is its folder, or `download`."""

    created: int
    path: str
    formats: list[str]


class StoreStatus(Response):
    """Response of `GET /v1/store`: what the store has, and how the recording goes.

    `fault`, `written` and `dropped` are those of `/version`; `waiting` answers are not written yet. `exports` has the
    newest ones, at most 100.
    """

    record: Literal["off", "opt_in", "all"]
    store: Literal["sqlite", "postgresql"]
    retention_days: float
    fault: str | None
    written: int
    waiting: int
    dropped: dict[str, int]
    selections: int
    expired: int
    oldest: int | None
    newest: int | None
    forgotten: int
    bytes: int
    batches: int
    annotations: int
    origins: list[StoredOrigin]
    exports: list[StoredExport]


class ForgetRequest(Request):
    """Body of `POST /v1/store/forget`: the `user` or `safety_identifier` that requests had."""

    user: str = Field(min_length=1)


class ForgottenUser(Response):
    """Response of `POST /v1/store/forget`: what was deleted, and the exports that still hold some of it."""

    selections: int
    annotations: int
    exports: list[StoredExport]
