"""The output of an engine's process, with processes that stand for engines."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from tests.live import wait_until
from winnow.models.engines.output import EngineOutput


def fail(output: EngineOutput, code: str) -> None:
    """Start a process that ends, as an engine that cannot start, and raise what vLLM does."""
    with output.inherited():
        subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
        raise RuntimeError("Engine core initialization failed. See root cause above.")


def test_a_failed_start_has_a_cause_and_prints_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    output = EngineOutput("policy")
    with pytest.raises(RuntimeError):
        fail(output, "print('on the way'); raise ValueError('no room for the cache')")
    assert output.cause() == "ValueError: no room for the cache"
    assert capfd.readouterr() == ("", "")
    assert "policy engine: on the way" in caplog.messages
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


def test_once_it_has_answered_its_lines_are_logged_as_they_come(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    output = EngineOutput("safety")
    with output.inherited():
        code = "print('starting', flush=True); input(); print('failing')"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    os.write(1, b"ours\n")
    assert not any("starting" in message for message in caplog.messages)
    output.go_live()
    assert not any("failing" in message for message in caplog.messages)
    process.communicate("\n", timeout=30)
    assert wait_until(lambda: "safety engine: failing" in caplog.messages, 30)
    assert caplog.records[-1].levelname == "WARNING"
    assert capfd.readouterr() == ("ours\n", "")


def test_a_process_that_dies_before_its_first_answer_has_a_cause_and_prints_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: a model that starts and fails at its first request logged two tracebacks before the one line."""
    caplog.set_level(logging.INFO)
    output = EngineOutput("safety")
    with output.inherited():
        code = "input(); raise RuntimeError('no kernel for this head size')"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    process.communicate("\n", timeout=30)
    output.end()
    assert output.cause() == "RuntimeError: no kernel for this head size"
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        ("ValueError: a\nTypeError: b", "TypeError: b"),
        ("(EngineCore pid=7) ERROR 11-25 [core.py:1510] torch.OutOfMemoryError: full", "torch.OutOfMemoryError: full"),
        ("  File 'x', line 3\nsafetensors.SafetensorError: bad\n(nothing more)", "safetensors.SafetensorError: bad"),
        ("nothing\nat all: really", None),
    ],
)
def test_the_cause_is_the_last_exception(printed: str, cause: str | None) -> None:
    output = EngineOutput("policy")
    with pytest.raises(RuntimeError):
        fail(output, f"print({printed!r})")
    assert output.cause() == cause
