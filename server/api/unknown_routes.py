"""404 and 405 for requests without a route: which path was probably meant, or what is served here.

A message never repeats what the client sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException

ELSEWHERE: Mapping[str, str] = {
    "assistants": "the Assistants API is not served here",
    "audio": "audio is not served here",
    "batches": "batches are not served here; `winnow distill` answers files of prompts",
    "chatkit": "ChatKit is not served here",
    "classify": "classification is not served here; POST /v1/rewards scores answers to a dialog",
    "containers": "containers are not served here",
    "conversations": "the Conversations API is not served here",
    "embed": "embeddings are not served here",
    "embeddings": "embeddings are not served here",
    "evals": "evals are not served here",
    "files": "files are not served here; `winnow distill` answers files of prompts",
    "fine_tuning": "fine-tuning is not served here; `winnow distill` writes training data",
    "images": "images are not served here",
    "invocations": "SageMaker's API is not served here",
    "messages": "Anthropic's Messages API is not served here",
    "moderations": "moderations are not served here; POST /v1/rewards scores answers to a dialog",
    "pooling": "pooling is not served here",
    "realtime": "the Realtime API is not served here",
    "rerank": "reranking is not served here; POST /v1/rewards scores answers to a dialog",
    "responses": "the Responses API is not served here; its chats go to POST /v1/chat/completions",
    "score": "text scores are not served here; POST /v1/rewards scores answers to a dialog",
    "threads": "the Assistants API is not served here",
    "uploads": "uploads are not served here",
    "vector_stores": "vector stores are not served here",
    "videos": "videos are not served here",
}
"""Segments of other servers' paths, and what to say of them."""
SYNONYMS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "docs": "/openapi.json",
    "generate": "/v1/completions",
    "healthz": "/health",
    "livez": "/health",
    "ping": "/health",
    "readyz": "/ready",
    "redoc": "/openapi.json",
    "tags": "/v1/models",
}
"""Last segments of other servers' paths, and what has their purpose here."""
VERSION = "/v1"
SIMILARITY = 0.8


def explained(error: HTTPException, path: str, routes: Mapping[str, Sequence[str]]) -> HTTPException:
    """Return a router's 404 or 405 with a message that helps; `routes` has the methods of each path."""
    if error.status_code == 405 and error.headers:
        allowed = {method.strip() for method in error.headers["Allow"].split(",")}
        methods = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        return HTTPException(405, f"this path takes {methods}", {"Allow": methods})
    if error.status_code != 404 or error.detail != "Not Found":
        return error
    segments = [segment for segment in path.lower().split("/") if segment]
    if found := _meant(segments, list(routes)):
        return HTTPException(404, f"there is no such path here; did you mean {found}?")
    reason = next((ELSEWHERE[segment] for segment in segments if segment in ELSEWHERE), "there is no such path here")
    served = ", ".join(f"{methods[0]} {path}" for path, methods in routes.items())
    return HTTPException(404, f"{reason}. This server serves {served}")


def _meant(segments: Sequence[str], paths: Sequence[str]) -> str | None:
    """Return the served path that ends as `segments` do, or one that resembles them; None if there is none.

    So a missing or a second /v1, a prefix of a proxy's, a slash too many and other capitals are all found.
    """
    ends = {path: path.removeprefix(VERSION).strip("/").split("/") for path in paths}
    for path, end in sorted(ends.items(), key=lambda item: -len(item[1])):
        if end[-1].startswith("{"):
            fixed = end[:-1]
            if any(segments[start : start + len(fixed)] == fixed for start in range(len(segments) - len(fixed))):
                return path
        elif segments[-len(end) :] == end:
            return path
    if any(segment in ELSEWHERE for segment in segments):
        return None
    if segments and segments[-1] in SYNONYMS:
        return SYNONYMS[segments[-1]]
    alike = difflib.get_close_matches("/" + "/".join(segments), paths, n=1, cutoff=SIMILARITY) if segments else []
    return alike[0] if alike else None
