"""The statuses that routes document in `/openapi.json`, beside their answers."""

from typing import Any

from winnow.clients.schema import ErrorBody

Documented = dict[int | str, dict[str, Any]]

REFUSED: Documented = {
    400: {"model": ErrorBody, "description": "The request has to be changed."},
    401: {"model": ErrorBody, "description": "A valid API key is needed."},
    431: {"model": ErrorBody, "description": "The head is too large."},
    503: {"model": ErrorBody, "description": "The server is shutting down, or an engine has died."},
}
BODY: Documented = {
    404: {"model": ErrorBody, "description": "The model is not served here."},
    408: {"model": ErrorBody, "description": "The request took too long to arrive."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "The body is not plain JSON."},
}
ANSWER: Documented = {
    429: {"model": ErrorBody, "description": "The queue is full; see Retry-After."},
    500: {"model": ErrorBody, "description": "No candidate could be scored."},
    504: {"model": ErrorBody, "description": "The request was not answered in time."},
}
STREAM: Documented = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The answer, or its stream."}
}
