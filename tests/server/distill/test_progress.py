from __future__ import annotations

import re

import pytest

from winnow.server.distill.progress import Meter, Reading, _Bar, _Lines

NOW = Reading(
    total=100_000, done=1234, errors=3, in_flight=1024, candidates_in_flight=16_384, candidates=5, tokens=6,
    seconds=2.0, prompts_per_second=12.3, tokens_per_second=12_345.0, eta_seconds=3661.0,
)  # fmt: skip


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_the_bar_keeps_what_matters_in_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 80 columns the counts and the bar used to collapse to nothing."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with _Bar() as show:
        show(NOW)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "1237/100000 prompts" in shown
    assert "1:01:01" in shown


def test_a_budget_is_shown_by_candidates_and_round(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(100)
    meter.begin_round(0, 40, 600)
    _Lines()(meter.read())
    meter.begin_round(3, 520, 600)
    meter.count_wave((), 4)
    _Lines()(meter.read())
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("40/600 candidates, first waves · ")
    assert second.startswith("524/600 candidates, round 3 · 0:00 left")
    assert Meter(100).read().budget is None
