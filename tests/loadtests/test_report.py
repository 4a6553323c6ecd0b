from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.loadtests.targets import Scripted, answered
from tests.loadtests.test_runner import ran
from tests.loadtests.test_scenario import scenario
from tests.loadtests.virtual import now
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.report import write_report
from winnow.loadtests.results import SCHEMA, Result, write
from winnow.loadtests.tables import show
from winnow.loadtests.types import Reply, Request

HOSTILE = '<script src="https://evil.example/x.js">'


def sometimes(request: Request) -> Reply | None:
    if request.number % 5 == 1:
        return Reply("refused", now(), error=HOSTILE)
    if request.number % 5 == 2:
        return Reply("left", now())
    return replace(answered(request), candidates=max(1, request.candidates - request.number % 3))


def result(*targets: Scripted, **changes: Any) -> Result:
    changes = {"requests": 20, "slo_ms": 1500.0, "description": "Fish & chips", **changes}
    repeats = ran(*targets, **changes)
    return Result(
        scenario(**changes), [{"name": target.name} for target in targets], repeats, "2026-01-01T00:00:00+00:00"
    )


@pytest.fixture(scope="module")
def compared() -> Result:
    slow = Scripted("<slow>", seconds=lambda request: 2.0, reply=sometimes)
    return result(Scripted("quick", reply=sometimes), slow, candidates=[2, 4], repeats=2)


def test_the_page_is_self_contained_and_names_every_target(compared: Result, tmp_path: Path) -> None:
    page = write_report(compared, tmp_path).read_text(encoding="utf-8")
    text = unescape(page)
    for name in (*compared.names, "Fish & chips", *(point.label for point in compared.points)):
        assert name in text
    assert "<slow>" not in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "url(" not in page
    assert page.count("<img") == page.count("data:image/png;base64,") >= 7
    assert 'name="viewport"' in page


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slo_ms": None, "repeats": 1},
        {"concurrency": None, "arrivals": {"kind": "poisson", "rate": [1.0, 2.0]}},
        {"concurrency": None, "requests": None, "seconds": 9.0, "arrivals": {"kind": "ramp", "rates": [1.0, 5.0, 1.0]}},
    ],
)
def test_every_kind_of_result_has_a_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert write_report(result(Scripted(), **changes), tmp_path).stat().st_size > 10_000


def test_a_result_without_answers_has_a_page(tmp_path: Path) -> None:
    refusing = Scripted(reply=lambda request: Reply("refused", now(), error="full"))
    assert "full" in write_report(result(refusing, candidates=[1, 2]), tmp_path).read_text(encoding="utf-8")


def test_a_run_interrupted_before_the_second_target_has_a_page(compared: Result, tmp_path: Path) -> None:
    page = write_report(replace(compared, repeats=compared.repeats[:1], is_interrupted=True), tmp_path)
    assert "interrupted" in page.read_text(encoding="utf-8")


def test_the_files_have_the_measurements(compared: Result, tmp_path: Path) -> None:
    write(compared, tmp_path / "new")
    found = json.loads((tmp_path / "new" / "result.json").read_text(encoding="utf-8"))
    assert found["schema"] == SCHEMA
    assert set(found) == {"schema", "started", "interrupted", "scenario", "machine", "systems", "points"}
    assert set(found["machine"]) == {"cpu", "cores", "platform", "python", "winnow"}
    assert found["scenario"]["prompts"]["count"] == 1
    assert "Hello!" not in json.dumps(found)
    point = found["points"][0]
    quick = point["systems"]["quick"]
    assert quick["estimates"]["whole_p50_ms"] == {
        "median": 1000.0,
        "low": 1000.0,
        "high": 1000.0,
        "repeats": 2,
        "unit": "ms",
    }
    assert [repeat["repeat"] for repeat in quick["repeats"]] == [0, 1]
    assert quick["repeats"][0]["whole_ms"]["max"] == 1000.0
    assert quick["repeats"][0]["good_share"] == 0.75
    assert point["against"][0]["system"] == "<slow>"
    assert point["against"][0]["ratios"]["whole_p50_ms"]["median"] == 0.5
    assert point["against"][0]["agreement"] == {"both": 24, "same": 24}
    lines = [
        json.loads(line) for line in (tmp_path / "new" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == 2 * 2 * 2 * 20
    assert {line["kind"] for line in lines} == {"answered", "refused", "left"}


def test_the_result_is_kept_where_the_requests_do_not_fit(compared: Result, tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").mkdir()
    with pytest.raises(LoadTestError, match=r"requests\.jsonl cannot be written"):
        write(compared, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["schema"] == SCHEMA
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl", "result.json"]


def test_the_table_shows_targets_and_notes(compared: Result) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    show(compared, console)
    text = console.export_text()
    for words in ("quick", "<slow>", "quick ÷ <slow>", "answer p50: 0.50 ×", "same text: 24 of 24", "50 %", HOSTILE):
        assert words in text


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_the_table_is_whole_at_every_width(compared: Result, width: int) -> None:
    """At 80 columns the points' labels used to collapse to nothing, and the numbers to `9…`."""
    console = Console(width=width, record=True, file=io.StringIO())
    show(compared, console)
    text = console.export_text()
    assert "…" not in text
    heading, *_ = (line for line in text.splitlines() if "answers" in line)
    assert "p50" in heading or width == 40
    for label in ("K = 2", "K = 4"):
        assert label in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
