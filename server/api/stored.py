"""Recorded answers by their ids: each for the holder of the key that asked for it, and all of them for operators."""

from __future__ import annotations

import re
import time

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from winnow.clients.schema import AnswerMessage, ChatCompletion, Choice, Deleted, StoredMessage, StoredMessages
from winnow.models.errors import NotStored
from winnow.server.api import responses
from winnow.server.api.auth import caller
from winnow.server.api.documentation import REFUSED, STORED
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.returned import returned
from winnow.server.service import Service
from winnow.server.store.recorder import Recorder
from winnow.server.store.rows import Stored
from winnow.server.store.store import Store

_ID = re.compile(r"chatcmpl-[0-9a-f]{32}")


def routes(service: Service) -> APIRouter:
    """Return the routes of recorded completions."""
    router = APIRouter(route_class=route_class(service.settings.max_body_bytes), responses=REFUSED | STORED)

    @router.get("/v1/chat/completions/{id}", response_model=ChatCompletion)
    async def stored_completion(id: str, request: Request) -> Response:
        """Return a recorded chat completion, with every candidate's text; log-probabilities are not recorded."""
        recorder = require_recorder(service)
        return json_response(completion(await recorder.call(lambda store: _own(store, id, recorder, request.scope))))

    @router.get("/v1/chat/completions/{id}/messages", response_model=StoredMessages)
    async def stored_messages(id: str, request: Request) -> Response:
        """Return the dialog that a recorded chat completion answers."""
        recorder = require_recorder(service)
        return json_response(messages(await recorder.call(lambda store: _own(store, id, recorder, request.scope))))

    @router.delete("/v1/chat/completions/{id}", response_model=Deleted)
    async def delete_completion(id: str, request: Request) -> Response:
        """Delete a recorded chat completion for good."""
        recorder = require_recorder(service)

        def delete(store: Store) -> bool:
            return store.delete(_own(store, id, recorder, request.scope).id)

        await recorder.call(delete)
        return json_response(Deleted(id=id))

    return router


def require_recorder(service: Service) -> Recorder:
    """Return what records answers.

    Raises:
        NotStored: nothing does.
    """
    if not service.recorder:
        raise NotStored("this server keeps nothing; its operator can start it with --store")
    return service.recorder


def _own(store: Store, id: str, recorder: Recorder, scope: Scope) -> Stored:
    """Return a completion of this caller's, or of anyone's to an operator, who could export them all anyway.

    Raises:
        NotStored: there is none by this id, or it is another caller's, which is not told apart.
    """
    who = caller(scope)
    owner = None if who.holder is None else recorder.preparer.pseudonyms.of_owner(who.holder)
    found = store.get(id, int(time.time())) if _ID.fullmatch(id) else None
    if found is None or ("operate" not in who.roles and found.owner != owner):
        raise NotStored("no completion by this id is stored for this key", "id")
    return found


def messages(stored: Stored) -> StoredMessages:
    """Return the dialog that a recorded answer is to."""
    data = [
        StoredMessage(id=f"{stored.id}-{number}", role=message.role, content=message.content)
        for number, message in enumerate(stored.record.messages)
    ]
    ids = [message.id for message in data]
    return StoredMessages(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)


def completion(stored: Stored) -> ChatCompletion:
    """Return a recorded answer as it was returned; a refusal stands in place of the answers, and hides their texts."""
    selection, refusal = stored.record.selection, stored.refusal
    return ChatCompletion(
        id=stored.id,
        created=stored.created,
        model=stored.model,
        choices=[
            Choice(index=index, message=AnswerMessage(content=answer.text), finish_reason=answer.finish_reason)
            for index, answer in enumerate(returned(selection, stored.record.n, refusal))
        ],
        usage=responses.usage(selection, stored.record.prompt_tokens),
        best_of_n=responses.report(selection, with_texts=refusal is None),
    )
