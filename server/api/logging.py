"""Log lines: text for people, JSON for machines; either way one line a message, whatever is in it."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "vllm_process_name"}


def set_up(settings: Settings) -> None:
    """Log to standard error at the settings' level; what libraries say only from warnings on, unless everything is wanted."""
    handler = logging.StreamHandler()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_Json() if as_json else _OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level="DEBUG" if settings.log_level == "debug" else "WARNING", force=True)
    logging.getLogger("winnow").setLevel(settings.log_level.upper())
    # Uvicorn tells in warnings what clients sent wrongly, which the access log tells already.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if settings.log_level == "debug" else "CRITICAL")


def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop could tell nobody: its kind and place."""
    error = context.get("exception")
    logger.error("unhandled: %s", _brief(error) if error else context.get("message"))


def _brief(error: BaseException) -> str:
    """An exception's kind and place; its text may hold what a user wrote, and a traceback is no line."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
        if frames
        else type(error).__name__
    )


class _Brief(logging.Formatter):
    """Shows exceptions in brief."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, logging's name
        """The exception's kind and place."""
        return _brief(ei[1])


class _Json(_Brief, OrjsonFormatter):
    """A line of JSON; what JSON lets stand but some readers take for the end of a line is escaped."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger"}
        fields = "%(levelname)s %(name)s %(message)s"
        super().__init__(fields, rename_fields=names, timestamp="time", reserved_attrs=_STANDARD)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ENDS)


class _OneLine(_Brief):
    """A line of text: the message, then what a caller put in `extra` as name=value; no control character survives."""

    def format(self, record: logging.LogRecord) -> str:
        extra: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line = " ".join([super().format(record), *(f"{name}={value}" for name, value in extra.items())])
        return line.translate(_ESCAPED)


_ENDS = {code: f"\\u{code:04x}" for code in (0x7F, 0x85, 0x2028, 0x2029)}
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
