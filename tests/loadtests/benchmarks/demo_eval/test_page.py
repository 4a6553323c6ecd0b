"""The page: what was measured beside what is wanted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.loadtests.benchmarks.demo_eval.made import judged
from winnow.loadtests.benchmarks.demo_eval.figures import evaluate
from winnow.loadtests.benchmarks.demo_eval.judged import CANDIDATES, SIZES
from winnow.loadtests.benchmarks.demo_eval.page import Results, aims, markdown, plot
from winnow.loadtests.benchmarks.demo_eval.pairs import PairFigures
from winnow.loadtests.benchmarks.demo_eval.questions import Asked, FirstQuestions
from winnow.models.statistics import wilson_interval
from winnow.models.types import Message


def asked(text: str, *answers: str) -> Asked:
    return Asked((Message("user", text),), answers, tuple(answer == "right" for answer in answers))


@pytest.fixture(scope="module")
def good() -> Results:
    """All that is wanted: the reward is the truth."""
    correct = [index % 4 == 0 for index in range(CANDIDATES)]
    items = [judged([flag + index / 1e3 for index, flag in enumerate(correct)], correct) for _ in range(5)]
    right = (asked("Which?", "right", "right"),)
    all_right = PairFigures(wilson_interval(100, 100), wilson_interval(40, 40))
    return Results(
        evaluate(items, 0), {"safety": all_right, "helpfulness": all_right}, FirstQuestions(right, right, right)
    )


def test_every_aim_that_is_met_is_told(good: Results) -> None:
    assert [aim.name for aim in aims(good) if not aim.is_met] == []
    assert "went wrong" not in markdown(good)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (
            {"pairs": {"helpfulness": PairFigures(wilson_interval(97, 100), wilson_interval(94, 100))}},
            {"helpfulness model: pairs that the world writes", "helpfulness model: the best-scored right answer"},
        ),
        (
            {"questions": FirstQuestions((asked("Where?", "right", "There <|> here.\n" + "| " * 100),), (), ())},
            {"“Where?”"},
        ),
        (
            {"questions": FirstQuestions((), (asked("Text", ""),), (asked("Odd", "right", "Arr!"),))},
            {"prompts with a text", "unknown questions"},
        ),
    ],
)
def test_an_aim_that_is_missed_is_told(good: Results, change: dict[str, object], missed: set[str]) -> None:
    results = dataclasses.replace(good, **change)
    found = [aim.name for aim in aims(results) if not aim.is_met]
    assert len(found) == len(missed)
    assert all(any(name.startswith(part) for name in found) for part in missed)
    text = markdown(results)
    if "questions" in change:
        assert "## First questions that went wrong" in text
        assert "1 of 2 |" in text
    assert all(line.count("|") - line.count("\\|") == lines[0].count("|") for lines in _tables(text) for line in lines)


def _tables(text: str) -> list[list[str]]:
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [lines for lines in blocks if lines and lines[0].startswith("|")]


def test_the_page_has_a_row_for_each_n_and_each_category(good: Results) -> None:
    by_size, wanted, categories, _ = _tables(markdown(good))
    assert [line.split("|")[1].strip() for line in by_size[2:]] == [str(size) for size in SIZES]
    assert len(wanted) == 2 + len(list(aims(good)))
    assert categories[2].startswith("| capital | 5 |")


def test_the_plot_is_drawn(good: Results, tmp_path: Path) -> None:
    plot(good.evaluation, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
