"""The measurement of `winnow distill` against the bare engine, without engines."""

from __future__ import annotations

import json

import pytest

from winnow.loadtests.benchmarks.distill_throughput import Round, Side, Void, last_progress, show, with_system
from winnow.models.demo.world import held_out_prompts


def events(done: int) -> str:
    progress = [{"event": "progress", "done": n, "seconds": 1.5 * n, "tokens": 10 * n} for n in (0, 1, done)]
    return "".join(json.dumps(event) + "\n" for event in [*progress, {"event": "done", "errors": 0, "files": {}}])


def test_the_last_progress_event_has_the_seconds() -> None:
    assert last_progress(events(4), prompts=4) == Side(6.0, 40)


@pytest.mark.parametrize("text", [events(3), ""])
def test_a_run_that_did_not_answer_every_prompt_is_void(text: str) -> None:
    with pytest.raises(Void, match="did not answer every prompt"):
        last_progress(text, prompts=4)


def test_a_system_message_is_put_before_prompts_that_have_none() -> None:
    prompts = held_out_prompts(40)
    for prompt in prompts:
        messages = with_system(prompt, "Be brief.").messages
        assert messages[0].role == "system"
        assert messages[-1] == prompt.messages[-1]
        assert with_system(prompt, "") == prompt
    assert any(prompt.messages[0].role == "system" for prompt in prompts)


def test_the_table_has_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    show([Round(Side(2.0, 8), Side(4.0, 8)), Round(Side(3.0, 8), Side(4.0, 8))], prompts=10, candidates=4)
    printed = capsys.readouterr().out
    assert "10 prompts × 4 candidates: ratio 0.500 in the middle, 0.500 to 0.750" in printed
    assert "20" in printed
