"""Figures, findings about trials, the document, the page and the summary, on outcomes made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.server.doctor.machines import H100, facts, outcomes, tiny
from winnow.server.doctor.facts_findings import findings as facts_findings
from winnow.server.doctor.figures import Figures, Part, Timed, figures
from winnow.server.doctor.page import gibibytes, milliseconds, ratio, render
from winnow.server.doctor.report import Report
from winnow.server.doctor.runner import Outcome
from winnow.server.doctor.trial_findings import findings

MIB = 2**20
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def report(folder: Path, **changes: Any) -> Report:
    return Report(facts(), tiny(folder), outcomes=outcomes(**changes))


def codes(found: Report) -> dict[str, str]:
    return {finding.code: finding.severity for finding in found.findings}


def test_times_stand_beside_their_floors(tmp_path: Path) -> None:
    found = figures(tiny(tmp_path), outcomes())
    assert [step.candidates for step in found.steps] == [1, 4, 16]
    floors = [step.floor for step in found.steps]
    assert floors == sorted(floors, key=lambda floor: floor or 0)
    for timed in (*found.steps, *found.selections):
        assert timed.floor
        assert timed.ratio == pytest.approx(timed.seconds / timed.floor)
    alone, *_, many = found.selections
    assert alone.floor == alone.floor_tied
    assert (many.floor_tied or 0) > (many.floor or 1)
    assert found.score
    assert found.score.ratio
    assert (found.candidates, found.scored) == (21, 21)


def test_without_a_measured_device_there_is_no_floor(tmp_path: Path) -> None:
    trials = {**outcomes(), "device": Outcome("device", 1.0, {}, error="no")}
    found = figures(tiny(tmp_path), trials)
    assert [step.ratio for step in found.steps] == [None] * 3
    assert found.selections[0].ratio_tied is None
    assert found.score
    assert found.score.floor is None


def test_on_cpu_each_engine_is_held_against_its_own_plan(tmp_path: Path) -> None:
    parts = figures(tiny(tmp_path), outcomes(engines=(300, 410, 700))).parts
    assert parts == (
        Part("safety", 400 * MIB, 300 * MIB),
        Part("helpfulness", 400 * MIB, 410 * MIB),
        Part("policy", 800 * MIB, 700 * MIB),
        Part("all", 1600 * MIB, 1400 * MIB),
    )


def test_on_a_card_the_policy_may_take_what_the_reward_models_left(tmp_path: Path) -> None:
    parts = figures(tiny(tmp_path), outcomes(margin=200, engines=(300, 410, 890), total=1590)).parts
    assert [part.is_exceeded for part in parts] == [False, True, False, False]
    assert parts[2].planned == 900 * MIB


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({}, "plan", "ok"),
        ({"engines": (300, 310, 801)}, "plan_policy", "problem"),
        ({"total": 1601}, "plan_all", "problem"),
        ({"engines": (300, 310)}, "memory", "advice"),
        ({"best_of": [{"candidates": 4, "scored": 3, "failures": ["no"], "seconds": 1.0, "lengths": [64] * 3,
                       "prompt_tokens": 9}]}, "scores", "problem"),
    ],
)  # fmt: skip
def test_what_follows_from_trials(tmp_path: Path, changes: dict[str, Any], code: str, severity: str) -> None:
    assert codes(report(tmp_path, **changes))[code] == severity


@pytest.mark.parametrize(("free", "severity"), [(400, "ok"), (150, "advice"), (50, "problem")])
def test_on_a_card_something_must_stay_free(free: int, severity: str) -> None:
    parts = (Part("all", 2, 1),)
    found = findings({}, Figures(None, parts=parts, least_free=free, total=10_000), is_tiny=False, on_gpu=True)
    assert {finding.code: finding.severity for finding in found}["card_free"] == severity


@pytest.mark.parametrize(("seconds", "far"), [(1.2, False), (1.4, True)])
def test_a_selection_far_from_its_floor_is_named_on_a_card_only(seconds: float, far: bool) -> None:
    found = Figures(None, selections=(Timed(16, seconds, 0.9, 1.0),))
    for is_tiny, on_gpu, expected in ((False, True, far), (True, True, False), (False, False, False)):
        named = {finding.code for finding in findings({}, found, is_tiny=is_tiny, on_gpu=on_gpu)}
        assert ("speed_16" in named) is expected


def test_a_failed_trial_is_a_problem_with_its_reason(tmp_path: Path) -> None:
    found = report(tmp_path)
    found.outcomes["policy"] = Outcome("policy", 240.0, error="not done after 240 s", is_late=True)
    found.outcomes["service"] = Outcome("service", 1.0, error="vLLM could not start", log=("a", "b"))
    listed = {finding.code: finding for finding in found.findings}
    assert "did not end in time: not done after 240 s" in listed["trial_policy"].text
    assert "failed: vLLM could not start" in listed["trial_service"].text
    assert found.status == "problem"
    assert found.headline.startswith("2 problems")
    found.outcomes["reward_model"] = Outcome("reward_model", 1.0, error="vLLM could not start")
    (both,) = [finding for finding in found.findings if "could not start" in finding.text]
    assert both.text.startswith('The trials "a reward model alone" and "all three')
    page = render(found).decode()
    assert "Logs of failed trials" in page
    assert "not done in time" in page


@pytest.mark.parametrize("name", ["device", "policy", "reward_model", "service"])
def test_what_a_trial_found_before_it_failed_is_shown(tmp_path: Path, name: str) -> None:
    """A trial notes one thing after another, and may end after any of them."""
    whole = outcomes()[name].found
    for count in range(len(whole)):
        found = report(tmp_path / str(count))
        known = dict([*whole.items()][:count])
        found.outcomes[name] = Outcome(name, 1.0, known, error="gone", log=("x",))
        assert found.status == "problem"
        assert "</html>" in render(found).decode()
        for rows in ("decode", "best_of"):
            if rows in known:
                found.outcomes[name] = Outcome(name, 1.0, {**known, rows: []}, error="gone")
                assert "</html>" in render(found).decode()


def test_the_document_has_the_keys_that_are_documented(tmp_path: Path) -> None:
    document = report(tmp_path).document
    assert document["version"] == 1
    assert orjson.loads(orjson.dumps(document)) == document
    table = OPERATIONS.read_text(encoding="utf-8").partition("## First run on a GPU")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(document)
    assert set(document["figures"]) == {
        "decode_steps", "score", "selections", "candidates", "scored", "memory", "least_free", "total",
    }  # fmt: skip
    assert set(document["trials"]) == {"device", "policy", "reward_model", "service"}


def test_no_path_is_in_the_document(tmp_path: Path) -> None:
    found = report(tmp_path)
    found.outcomes["policy"] = Outcome("policy", 1.0, {"x": f"{tmp_path}/secret-folder/file.py"}, error="x")
    told = orjson.dumps(found.document).decode()
    assert str(tmp_path) not in told
    assert "secret-folder" not in told
    assert "file.py" in told


def test_the_page_is_alone(tmp_path: Path) -> None:
    """It has no script, loads nothing, and text from outside is text on it."""
    found = report(tmp_path)
    bad = "<script>alert(1)</script> <img src=https://evil.example/x.png>"
    found.facts = facts(H100, cpu=bad, environment={"VLLM_X": None, "OMP_NUM_THREADS": bad})
    found.outcomes["policy"] = Outcome("policy", 1.0, error=bad, log=(bad,))
    page = render(found).decode()
    assert "<script" not in page
    assert "<img" not in page
    assert "evil.example" not in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "default-src 'none'" in page
    assert page.count("<h2") == page.count("</h2>")


@pytest.mark.parametrize("card", [None, H100])
def test_a_page_of_facts_alone(card: Any) -> None:
    found = Report(facts(card))
    page = render(found).decode()
    assert "No problem was found" in page
    assert "Trials" not in page
    assert ("NVIDIA H100" in page) is bool(card)


def test_the_summary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    told = facts(replace(H100, mps=False))
    found = Report(told, tiny(tmp_path), [*facts_findings(told)], outcomes())
    lines = "\n".join(found.summary()).splitlines()
    assert lines[0] == "No problem was found, 1 piece of advice."
    assert lines[1].startswith("advice:")
    assert any("→ Start MPS" in line for line in lines)
    assert all(len(line) <= 60 for line in lines)


def test_numbers_have_their_digits() -> None:
    assert [milliseconds(value) for value in (None, 0.5, 0.05, 0.0012, 0.00012)] == [
        "–",
        "500",
        "50.0",
        "1.20",
        "0.120",
    ]
    assert [ratio(value) for value in (None, 1.234, 3.45, 25.4)] == ["–", "1.23", "3.5", "25"]
    assert gibibytes(None) == "–"
    assert gibibytes(3 * 2**29) == "1.50"
