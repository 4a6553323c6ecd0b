"""The page, from made-up figures."""

from __future__ import annotations

import json
from pathlib import Path

from winnow.loadtests.benchmarks.baselines import page
from winnow.loadtests.benchmarks.baselines.agreement import Agreement
from winnow.loadtests.benchmarks.baselines.bench import scenes
from winnow.loadtests.benchmarks.baselines.figures import GOALS, Figures, Run
from winnow.loadtests.benchmarks.baselines.fleet import NAMES
from winnow.loadtests.benchmarks.pages import with_interval

MISSING = {"optillm": "not installed: there is no environment\nand more"}


def measured() -> page.Measured:
    chosen = scenes(4, 8, 16)
    runs = [
        Run(scene.name, name, number, 2.0, (0.1 * place, 0.2 * place), tokens=128, failed=0, answers=((0, "x"),))
        for scene in chosen
        for place, name in enumerate(NAMES, start=1)
        for number in (1, 2)
        if name not in MISSING
    ]
    return page.Measured(Figures(tuple(runs)), chosen, MISSING, Agreement(20, 320, 2e-6, 20), is_forced=True)


def test_every_goal_stands_there_with_its_figure_and_whether_it_is_met() -> None:
    found = measured()
    text = page.markdown(found, {"processor": "a fast one"}, "plot.png")
    words = {True: "met", False: "missed", None: "not measured"}
    for goal in GOALS:
        line = next(line for line in text.splitlines() if f": {goal.text} |" in line and f"{goal.bound:g}" in line)
        assert line.endswith(
            f"| {with_interval(goal.figure(found.figures), '{:,.2f}'.format)} | {words[goal.is_met(found.figures)]} |"
        )
    assert {goal.is_met(found.figures) for goal in GOALS} == {True, False, None}


def test_every_system_stands_there_and_a_missing_one_says_why() -> None:
    text = page.markdown(measured(), {"processor": "a fast one"}, "plot.png")
    for name in NAMES:
        assert f"- **{name}**" in text
        assert text.count(f"| {name} | ") == 3
    assert text.count("| optillm | does not run: not installed: there is no environment |") == 3
    assert "and more" in text
    assert "a fast one" in text
    assert "differ by at most 2e-06" in text


def test_tables_are_rectangular() -> None:
    widths = [
        line.count("|") for line in page.markdown(measured(), {}, "plot.png").splitlines() if line.startswith("| ")
    ]
    assert set(widths) == {3, 5, 11}


def test_the_files_are_written_beside_each_other(tmp_path: Path) -> None:
    paths = page.write(measured(), {"processor": "a fast one"}, tmp_path / "benchmarks.md")
    assert [path.name for path in paths] == ["benchmarks.md", "benchmarks.json", "benchmarks.png"]
    told = json.loads(paths[1].read_text(), parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert len(told["goals"]) == len(GOALS)
    assert told["goals"][0].keys() == {"goal", "bound", "median", "low", "high", "met"}
    assert len(told["runs"]) == len(measured().figures.runs)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_is_a_page_too() -> None:
    empty = page.Measured(Figures(()), scenes(4, 8, 16), {}, None, is_forced=False)
    assert page.markdown(empty, {}, "plot.png").count("not measured") == len(GOALS)
