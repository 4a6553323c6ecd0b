from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from winnow.server.cli import check
from winnow.server.cli.check import Comparison, compare
from winnow.server.cli.main import app
from winnow.server.service import Service


def comparison(served: list[float], together: list[float], dtype: str = "float32") -> Comparison:
    return Comparison("safety", dtype, reference=[[1.0, 2.0, 3.0]], alone=[served], together=[together])


@pytest.mark.parametrize(
    ("served", "together", "passes"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], True),
        ([1.01, 2.0, 3.0], [1.0, 2.0, 2.99], True),
        ([1.05, 2.0, 3.0], [1.0, 2.0, 3.0], False),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.05], False),
        ([1.0, 2.0, math.nan], [1.0, 2.0, math.nan], False),
        ([0.73, 0.88, 0.95], [0.73, 0.88, 0.95], False),
    ],
)
def test_a_difference_above_the_tolerance_fails(served: list[float], together: list[float], passes: bool) -> None:
    assert comparison(served, together).passes == passes


def test_low_precision_has_a_wider_tolerance() -> None:
    assert comparison([1.05, 2.0, 3.0], [1.0, 2.0, 3.05], "bfloat16").passes


def test_a_rank_changed_by_the_batch_fails_even_within_the_tolerance() -> None:
    changed = Comparison("safety", "float32", [[1.0, 2.0, 2.001]], [[1.0, 2.0, 2.001]], [[1.0, 2.001, 2.0]])
    assert changed.largest_difference < changed.tolerance
    assert changed.ranks_changed == 1
    assert not changed.passes


def run(monkeypatch: pytest.MonkeyPatch, *comparisons: Comparison) -> Result:
    """Run the command, with a comparison that gives `comparisons` and starts no engine."""

    @contextlib.contextmanager
    def started(settings: object) -> Iterator[None]:
        yield

    async def compared(service: object) -> list[Comparison]:
        return list(comparisons)

    monkeypatch.setattr("winnow.server.service.started", started)
    monkeypatch.setattr(check, "compare", compared)
    return CliRunner().invoke(app, ["check"], env={"COLUMNS": "120"})


def test_the_command_prints_a_row_per_model_and_fails_if_one_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = comparison([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), comparison([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
    done = run(monkeypatch, good, good)
    assert done.exit_code == 0
    assert done.stdout.count(" ok ") == 2
    done = run(monkeypatch, good, bad)
    assert done.exit_code == 1
    assert (done.stdout.count(" ok "), done.stdout.count("FAILED")) == (1, 1)
    assert done.stderr == "winnow: the served scores of the safety model differ from the checkpoint's\n"


@pytest.mark.engine
async def test_the_demo_models_pass(service: Service) -> None:
    comparisons = await compare(service)
    assert [(each.name, each.scores) for each in comparisons] == [("safety", 192), ("helpfulness", 192)]
    assert all(each.passes for each in comparisons)
