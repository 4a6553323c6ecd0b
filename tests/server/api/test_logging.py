"""One line per message, whatever the message contains."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from winnow.server.api.logging import set_up
from winnow.server.settings import Settings

HOSTILE = "one\r\ntwo\x1b[31m\u2028three\x00"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Yield the root logger, and restore it afterwards."""
    names = ("", "winnow", "uvicorn.error")
    before = [
        (logging.getLogger(name), list(logging.getLogger(name).handlers), logging.getLogger(name).level)
        for name in names
    ]
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)
    yield logging.getLogger()
    for logger, handlers, level in before:
        logger.handlers, logger.level = handlers, level
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("log_format", ["text", "json", "auto"])
def test_no_message_can_forge_a_line(root: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    set_up(Settings(log_format=log_format))
    logging.getLogger("winnow.access").info("request %s", HOSTILE, extra={"answer": HOSTILE, "ms": 1.5})
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "\x1b" not in told
    if log_format == "text":
        assert "ms=1.5" in told
    else:
        line = json.loads(told)
        assert (line["level"], line["logger"], line["ms"], line["answer"]) == ("INFO", "winnow.access", 1.5, HOSTILE)
        assert line["time"].endswith("+00:00")


def test_the_level_is_that_of_the_settings(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Settings(log_level="warning"))
    logging.getLogger("winnow.access").info("not this")
    logging.getLogger("somebody").info("nor this")
    logging.getLogger("winnow").warning("but this")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["but this"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_logged_by_kind_and_place(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    set_up(Settings(log_format=log_format))
    try:
        raise ValueError("what a user wrote")
    except ValueError:
        logging.getLogger("winnow").exception("it failed")
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "ValueError at test_logging.py:" in told
    assert "user" not in told
    assert "/" not in told
