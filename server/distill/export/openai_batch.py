"""`openai-batch`: the output that OpenAI's batch API would return, one line per input line.

Ids are hashes, and `created` and the timings are 0, so that the same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from operator import itemgetter
from typing import Any

from pydantic import BaseModel

from winnow.clients.schema import AnswerMessage, ChatCompletion, Choice
from winnow.models.types import Timings
from winnow.server.api import responses
from winnow.server.distill.export.columns import Column
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Problem, Record

Row = dict[str, Any]


class BatchResponse(BaseModel):
    """The response of a line, as an HTTP server would have given it."""

    status_code: int
    request_id: str
    body: ChatCompletion


class BatchError(BaseModel):
    """The reason why a line has no response."""

    code: str
    message: str


COLUMNS: tuple[Column[Row], ...] = (
    Column("id", "string", "a hash of the line", itemgetter("id")),
    Column("custom_id", "string", "the prompt's own id, or `line-N`", itemgetter("custom_id")),
    Column("response", BatchResponse, "the chat completion; null if the line has no answers", itemgetter("response")),
    Column("error", BatchError, "`code` and `message`; null if there is a response", itemgetter("error")),
)
NO_TIMINGS = Timings(0.0, 0.0, 0.0, 0.0, 0.0)


def model(manifest: Manifest) -> str:
    """Return the name of the model that answered, as a server calls it."""
    models = manifest["models"]
    model = models.get("policy") or models["server"]
    return str(model.get("served_as") or model["id"])


def result(entry: Record | Problem, name: str) -> Row:
    """Return the batch output line of `entry`; `name` is the model's.

    Its `custom_id` is the prompt's id, or `line-N` if it has none.
    """
    own = f"{entry.line} {entry.digest if isinstance(entry, Record) else ''} {entry.id or ''}"
    token = hashlib.blake2b(own.encode(), digest_size=16).hexdigest()
    head = {"id": f"batch_req_{token}", "custom_id": entry.id or f"line-{entry.line}"}
    if isinstance(entry, Problem):
        return {**head, "response": None, "error": {"code": entry.code, "message": entry.message}}
    body = _completion(entry, f"chatcmpl-{token}", name).model_dump(mode="json")
    return {**head, "response": {"status_code": 200, "request_id": f"req_{token}", "body": body}, "error": None}


def _completion(record: Record, token: str, name: str) -> ChatCompletion:
    selection = replace(record.selection, timings=NO_TIMINGS)
    return ChatCompletion(
        id=token,
        created=0,
        model=name,
        choices=[
            Choice(
                index=place,
                message=AnswerMessage(content=item.candidate.text),
                finish_reason=item.candidate.finish_reason,
            )
            for place, item in enumerate(selection.ranked[: record.n])
        ],
        usage=responses.usage(selection, record.prompt_tokens),
        best_of_n=responses.report(selection, with_texts=False),
    )
