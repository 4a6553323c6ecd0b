"""The identity of a run: what may differ between two processes that work on it, and what may not."""

from __future__ import annotations

import pytest

from winnow.server.distill import identity
from winnow.server.settings import Settings


@pytest.mark.parametrize(
    ("settings", "on_gpu", "eager"),
    [
        ({}, False, True),
        ({"eager": True}, False, True),
        ({"compile": True}, False, False),
        ({}, True, "graphs"),
        ({"eager": True}, True, True),
        ({"compile": True}, True, False),
    ],
)
def test_a_run_keeps_to_one_execution_and_knows_those_from_before_graphs(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool], on_gpu: bool, eager: object
) -> None:
    """Where there were no graphs yet, a manifest had true or false."""
    monkeypatch.setattr(identity, "runs_on_gpu", lambda: on_gpu)
    assert identity._engine_settings(Settings(**settings))["eager"] == eager  # type: ignore[arg-type]
