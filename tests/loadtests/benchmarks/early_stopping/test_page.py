from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.loadtests.benchmarks.early_stopping.runs import EARLY_STOPPING, EXACT, PROMPTS, load, measurement, run
from winnow.loadtests.benchmarks.early_stopping.__main__ import arguments
from winnow.loadtests.benchmarks.early_stopping.page import document, markdown
from winnow.loadtests.benchmarks.early_stopping.plot import draw
from winnow.loadtests.benchmarks.early_stopping.sentences import percent, sentence
from winnow.loadtests.benchmarks.early_stopping.settings import accept
from winnow.loadtests.benchmarks.early_stopping.verdicts import Saving
from winnow.loadtests.benchmarks.pages import UNKNOWN
from winnow.models.statistics import Interval

NAMES = [run.setting.name for run in EARLY_STOPPING]
BOTH = measurement()


def test_every_setting_has_a_row_under_every_load_and_a_verdict() -> None:
    page = markdown(BOTH)
    tables = page.split("\n## ")
    for table in tables[2:4]:
        for name in [*(f"K = {k}" for k in EXACT), *NAMES]:
            assert f"| {name} " in table
    for name in NAMES:
        assert f"- {sentence(BOTH, name)}" in page


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", markdown(BOTH), re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            NAMES[0],
            "**accept_reward: 0.8 pays** in tokens (50 % at 1 client and 50 % at 8 clients) and in latency (50 %",
        ),
        (NAMES[1], "**early_rejection, keep 0.5: at [4] does not pay** in tokens or latency at 1 and 8 clients."),
        (
            NAMES[2],
            "cannot be compared**. No exact K has its mean R_c, or more than 2.0 % was refused: in tokens or latency",
        ),
        (
            NAMES[3],
            "**candidates 2–16 pays** in tokens (25 % at 1 client and 25 % at 8 clients); "
            "not in latency at 1 and 8 clients.",
        ),
        (NAMES[4], "cannot be compared**"),
    ],
)
def test_the_page_says_whether_a_setting_pays(name: str, said: str) -> None:
    assert said in sentence(BOTH, name)


def test_a_setting_may_pay_under_one_load_and_not_under_another() -> None:
    dear = load(8, [run(accept(0.8), 0.9, 700, 500)])
    assert sentence(measurement(load(), dear), "accept_reward: 0.8") == (
        "**accept_reward: 0.8 pays** in tokens (50 % at 1 client) and in latency (50 % at 1 client); "
        "not in tokens or latency at 8 clients."
    )


def test_a_setting_measured_under_one_load_only_has_figures_there() -> None:
    found = measurement(load(), load(8, EARLY_STOPPING[:1]))
    assert sentence(found, NAMES[1]).endswith("does not pay** in tokens or latency at 1 client.")
    assert UNKNOWN in markdown(found)
    assert [setting.name for setting in measurement(load(8, EARLY_STOPPING[2:3]), load()).early_stopping] == NAMES


def test_a_quick_run_says_so() -> None:
    assert "too few prompts" in markdown(measurement(is_quick=True))
    assert "too few prompts" not in markdown(BOTH)


def test_the_document_is_plain_json_with_everything_named() -> None:
    found = json.loads(json.dumps(document(BOTH), allow_nan=False))
    assert [row["setting"]["name"] for row in found["loads"][0]["rows"]] == [*(f"K = {k}" for k in EXACT), *NAMES]
    assert found["loads"][0]["rows"][0]["setting"]["best_of_n"] == {"candidates": {"min": 1, "max": 1}}
    assert found["loads"][1]["rows"][5]["saving"]["pays_in_tokens"] is True


def test_the_picture_is_a_png() -> None:
    assert draw(measurement(load(8))).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("share", "text"), [(0.123, "12 %"), (0.0123, "1.2 %"), (-0.5, "−50 %"), (0.0, "0 %"), (-0.0001, "0 %")]
)
def test_shares_are_short(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_command_line() -> None:
    assert (arguments([]).prompts, arguments([]).out) == (150, Path("docs"))
    assert arguments(["--quick"]).prompts < 150
    assert arguments(["--quick", "--prompts", "7"]).prompts == 7


def test_an_end_beyond_the_curve_is_null_in_the_document_and_a_dash_on_the_page() -> None:
    figures = measurement(load()).loads[0]
    *exact, row = figures.rows[:6]
    tokens = Interval(0.5, -math.inf, 0.75, PROMPTS)
    saving = Saving(tokens, None, None, None, pays_in_tokens=False, pays_in_latency=False)
    changed = replace(figures, rows=(*exact, replace(row, saving=saving)))
    found = replace(measurement(load()), loads=[changed])
    assert document(found)["loads"][0]["rows"][5]["saving"]["tokens"] == {"value": 0.5, "low": None, "high": 0.75}
    assert f"| 50 % ({UNKNOWN} to 75 %) | {UNKNOWN} |" in markdown(found)
