"""Progress on standard error."""

from __future__ import annotations

import io
import sys

import pytest

from winnow.server.rm import meter
from winnow.server.rm.meter import Meter, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.2), (False, 10.0)])
def test_a_state_is_shown_now_and_then(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, seconds: float) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    shown = Meter()
    for step in range(9):
        now[0] = step * seconds / 4
        shown.show(lambda step=step: f"step {step}")
    shown.end("done")
    text = stream.getvalue()
    assert [line for line in ("step 3", "step 4", "step 5", "step 8") if line in text] == ["step 4", "step 8"]
    assert text.endswith("done\n")
    assert text.count("\n") == (1 if is_terminal else 3)
    assert ("\r" in text) is is_terminal


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_a_time_left(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
