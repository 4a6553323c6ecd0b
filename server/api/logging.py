"""Logging: the line of a request, and formats as text for people and JSON for machines, one line per message."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter
from starlette.types import Scope

from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

UNANSWERED = 499
"""Status in the log of a request whose client left before its answer began."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "vllm_process_name"}
"""Attributes of every log record; the others come from a caller's `extra`."""


@dataclass(slots=True)
class RequestLog:
    """One request's line in the access log. The route adds to `fields`."""

    id: str
    flow: str
    """The caller, for the fair queue and the log: the key's short name, or the client's address."""
    started: float = field(default_factory=time.monotonic)
    status: int = UNANSWERED
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def ms(self) -> float:
        """Milliseconds since the request's head was read."""
        return round((time.monotonic() - self.started) * 1e3, 1)


def request_id(scope: Scope) -> str:
    """Return the id of a request, always the same: the client's `X-Request-Id` if it is short and plain, else our own.

    Of `scope` only the headers are needed.
    """
    if "winnow.request_id" not in scope:
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        is_plain = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
        scope["winnow.request_id"] = given[0].decode() if is_plain else f"req_{secrets.token_hex(16)}"
    found: str = scope["winnow.request_id"]
    return found


def request_log(scope: Scope) -> RequestLog:
    """Return the log of the request that `scope` belongs to."""
    log: RequestLog = scope["winnow.log"]
    return log


def set_up(settings: Settings) -> None:
    """Log to standard error at `log_level`; libraries only from warnings on, unless the level is debug."""
    handler = logging.StreamHandler()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_Json() if as_json else _Text("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level="DEBUG" if settings.log_level == "debug" else "WARNING", force=True)
    logging.getLogger("winnow").setLevel(settings.log_level.upper())
    # Uvicorn warns about malformed requests, which the access log has already.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if settings.log_level == "debug" else "CRITICAL")


def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log the kind and the place of an exception that no task retrieved; an event loop's exception handler."""
    error = context.get("exception")
    logger.error("unhandled: %s", brief(error) if error else context.get("message"))


def brief(error: BaseException) -> str:
    """Return an exception's kind and place. Its text may contain what a user wrote, and a traceback has many lines."""
    frames = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    return f"{kind} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else kind


class _Brief(logging.Formatter):
    """Formats exceptions as kind and place."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, logging's name
        """Return the exception's kind and place."""
        return brief(ei[1])


class _Json(_Brief, OrjsonFormatter):
    """One JSON object per line. Characters that JSON allows but some readers take for line ends are escaped."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger"}
        fields = "%(levelname)s %(name)s %(message)s"
        super().__init__(fields, rename_fields=names, timestamp="time", reserved_attrs=_STANDARD)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_LINE_ENDS)


class _Text(_Brief):
    """One line of text: the message, then the caller's `extra` as name=value. Control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        extra: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line = " ".join([super().format(record), *(f"{name}={value}" for name, value in extra.items())])
        return line.translate(_CONTROLS)


_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x7F, 0x85, 0x2028, 0x2029)}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
