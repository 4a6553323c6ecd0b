"""The plan of a cluster: enough replicas and no more, from stated or measured speeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from winnow.models import demo
from winnow.models.engines.dummy_checkpoints import SHAPES, write_all
from winnow.models.errors import SettingsError
from winnow.server.cli.main import app
from winnow.server.cluster_plan import ClusterPlan, Load, Speed, measured

LOAD = ("--cluster", "--requests-per-second", "20", "-k", "16", "--answer-tokens", "200")
positive = st.floats(0.01, 1e5)


@given(positive, st.integers(1, 64), st.floats(1, 4096), positive, st.floats(0.05, 1), st.integers(0, 3))
def test_the_replicas_are_enough_and_one_fewer_is_not(
    requests: float, candidates: int, tokens: float, speed: float, busy: float, spare: int
) -> None:
    planned = ClusterPlan(Load(requests, candidates, tokens), Speed(speed, "as stated"), busy, spare)
    assert planned.replicas == planned.needed + spare
    assert planned.busy_with(planned.needed) <= busy * (1 + 1e-6)
    if planned.needed > 1:
        assert planned.busy_with(planned.needed - 1) > busy * (1 - 1e-6)


def test_a_whole_number_of_replicas_needs_no_more() -> None:
    """Twenty requests of 3,200 tokens are 64,000 a second: ten replicas of 8,000, at most 80 % busy."""
    assert ClusterPlan(Load(20, 16, 200), Speed(8000, "as stated"), 0.8, 1).needed == 10


def result(path: Path, *points: dict[str, float], schema: str = "winnow.loadtest/1") -> Path:
    systems = [{name: {"median": value} for name, value in point.items()} for point in points]
    body = [
        {"label": f"K = {place}", "systems": {"winnow": {"estimates": found}}} for place, found in enumerate(systems)
    ]
    path.write_text(json.dumps({"schema": schema, "points": body}))
    return path


def test_the_fastest_measured_point_counts(tmp_path: Path) -> None:
    file = result(
        tmp_path / "result.json",
        {"tokens_rate": 900.0, "candidates_rate": 9.0},
        {"tokens_rate": 1000.0, "candidates_rate": 8.0},
        {"candidates_rate": 80.0},
    )
    assert measured(file) == Speed(1000.0, "measured, result.json, K = 1", 125.0)


def test_what_says_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with pytest.raises(SettingsError, match="cannot be read"):
        measured(file)
    for text in ("nonsense", "[]", "{}"):
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"no result\.json of winnow loadtest"):
            measured(file)
    with pytest.raises(SettingsError, match="says nothing of sampled tokens"):
        measured(result(file, {"candidates_rate": 8.0}))


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "160"})
    return done.exit_code, done.output


def test_the_command_prints_cards_replicas_and_requests(tmp_path: Path) -> None:
    seven = write_all(tmp_path, SHAPES["llama-2-7b"], demo.weights("policy"))
    models = [flag for role, folder in seven.items() for flag in (f"--{role}", str(folder))]
    status, text = said(*LOAD, "--tokens-per-second", "8000", "--busy", "0.8", "--card-gib", "80", *models)
    assert status == 0, text
    lines = dict(line.strip().split("  ", 1) for line in text.splitlines() if "  " in line.strip())
    told = {name: value.strip() for name, value in lines.items()}
    assert told["load"] == "20 requests/s of K = 16, 200 tokens each: 64,000 tokens/s"
    assert told["a replica"] == "8,000 tokens/s (as stated): 2.5 requests/s when fully busy"
    assert told["replicas"] == "11: 10 at most 80% busy, and 1 spare"
    assert told["cards"] == "11 of 80 GiB, one a replica"
    assert told["expected"] == "22 requests/s at 80%, at most 27.5; under this load each is 73% busy"
    assert told["if some are gone"] == "1 gone: 10 serve, each 80% busy"
    assert told["room"].startswith("89 candidates of 512 tokens")


def test_a_measured_speed_tells_the_length_of_answers_too(tmp_path: Path) -> None:
    file = result(tmp_path / "result.json", {"tokens_rate": 1000.0, "candidates_rate": 8.0})
    status, text = said("--cluster", "--requests-per-second", "1", "-k", "8", "--measured", str(file), "--spare", "0")
    assert status == 0, text
    assert "1 requests/s of K = 8, 125 tokens each: 1,000 tokens/s" in text
    assert "machines" in text
    assert "1 gone: 1 serve, each 100% busy" in text


def test_models_that_do_not_fit_take_more_cards(tmp_path: Path) -> None:
    thirteen = write_all(tmp_path, SHAPES["llama-2-13b"], demo.weights("policy"))
    models = [flag for role, folder in thirteen.items() for flag in (f"--{role}", str(folder))]
    asked = (*LOAD, "--tokens-per-second", "8000", "--busy", "0.8", "--card-gib", "80", *models)
    status, text = said(*asked)
    assert status == 1
    assert "the three engines need 90.8 GiB at least" in text
    status, text = said(*asked, "--tensor-parallel", "2")
    assert status == 0, text
    assert "22 of 80 GiB, 2 a replica" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests-per-second", "1"], "add --cluster"),
        (["--cluster", "--tokens-per-second", "1"], "--requests-per-second"),
        (["--cluster", "--requests-per-second", "1"], "either --tokens-per-second, or --measured"),
        ([*LOAD, "--tokens-per-second", "1", "--policy", "http://h:1"], "the cards are theirs"),
        (
            ["--cluster", "--requests-per-second", "1", "--tokens-per-second", "1", "--measured", "x"],
            "either --tokens-per-second, or --measured",
        ),
    ],
)
def test_half_a_question_is_told(arguments: list[str], message: str) -> None:
    status, text = said(*arguments)
    assert status == 1
    assert message in text
