"""`openai-batch`: what OpenAI's batch API would have returned for the input, one line for each line of it.

Ids are hashes and nothing is a time (`created` is 0, the timings are 0), so that the same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from winnow.clients.schema import AnswerMessage, ChatCompletion, Choice, Usage
from winnow.models.types import Prompt, Selection, Timings
from winnow.server.api import views
from winnow.server.distill.export.answered import entrant
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Problem, Record


def model(manifest: Manifest) -> str:
    """What answered, by the name that the run knows it under."""
    models = manifest["models"]
    return str((models.get("policy") or models["server"])["id"])


def result(entry: Record | Problem, name: str) -> dict[str, Any]:
    """The line of a batch output that `entry` makes; `name` is the model's.

    Its `custom_id` is the prompt's id, or `line-N` where it has none.
    """
    own = f"{entry.line} {entry.digest if isinstance(entry, Record) else ''} {entry.id or ''}"
    token = hashlib.blake2b(own.encode(), digest_size=16).hexdigest()
    head = {"id": f"batch_req_{token}", "custom_id": entry.id or f"line-{entry.line}"}
    if isinstance(entry, Problem):
        return {**head, "response": None, "error": {"code": entry.code, "message": entry.message}}
    body = _completion(entry, f"chatcmpl-{token}", name).model_dump(mode="json")
    return {**head, "response": {"status_code": 200, "request_id": f"req_{token}", "body": body}, "error": None}


def _completion(record: Record, token: str, name: str) -> ChatCompletion:
    selection = _selection(record)
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
        usage=Usage(
            prompt_tokens=record.prompt_tokens,
            completion_tokens=selection.sampled_tokens,
            total_tokens=record.prompt_tokens + selection.sampled_tokens,
        ),
        best_of_n=views.report(selection, with_texts=False),
    )


def _selection(record: Record) -> Selection:
    """The selection that the record was made of, as far as it is kept: no token ids, no times."""
    return Selection(
        Prompt((), record.is_safety),
        record.combiner,
        tuple(entrant(answer, answer.index) for answer in record.answers),
        record.ranking,
        record.failures,
        Timings(0.0, 0.0, 0.0, 0.0, 0.0),
    )
