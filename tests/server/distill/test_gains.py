"""The table that a run teaches: from its journal and manifest alone, and of the right candidates."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from tests.runs import make_run, record
from winnow.models.gains import GainTable
from winnow.server.distill.gains import NAME, remark, traced, traces, write_gains
from winnow.server.distill.journal import NAME as JOURNAL
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Arm, DrawnWaves, Record
from winnow.server.distill.report import report
from winnow.server.model_identity import fingerprint_of

MODELS = {
    "policy": {"id": "p", "sha256": "1", "template": "llama2"},
    "safety": {"id": "s", "sha256": "2", "card": None},
    "helpfulness": {"id": "h", "sha256": "3", "card": {"name": "armorm", "sha256": "4"}},
}
DAY = 1_790_000_000  # 2026-09-21


def change(folder: Path, **entries: Any) -> None:
    path = folder / "manifest.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **entries}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of 40 prompts with 8 candidates, on models of this machine."""
    make_run(tmp_path / "run", 40)
    change(tmp_path / "run", models=MODELS)
    os.utime(tmp_path / "run" / JOURNAL, (DAY, DAY))
    return tmp_path / "run"


def written(folder: Path, records: list[Record]) -> Path:
    folder.mkdir()
    with Journal(folder) as journal:
        for item in records:
            journal.append(item)
    return folder


def test_a_run_teaches_its_table(run: Path) -> None:
    table = write_gains(run)
    assert table == GainTable.read(run / NAME, fingerprint_of(MODELS, {}))
    assert table is not None
    assert (table.prompts, table.candidates, table.date) == (40, 320, "2026-09-21")
    assert "40 prompts, few" in remark(table)
    assert "few" not in remark(replace(table, prompts=100))


def test_equal_journals_give_equal_files(run: Path) -> None:
    write_gains(run)
    first = (run / NAME).read_bytes()
    write_gains(run)
    assert (run / NAME).read_bytes() == first


def test_the_report_writes_it_and_shows_it(run: Path, tmp_path: Path) -> None:
    page = report(run).read_text(encoding="utf-8")
    assert "What a further candidate gains" in page
    assert GainTable.read(run / NAME).prompts == 40
    report(run, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / NAME).read_bytes() == (run / NAME).read_bytes()


def test_a_run_on_a_server_has_none(run: Path) -> None:
    change(run, models={"server": {"id": "winnow", "sha256": None}})
    assert write_gains(run) is None
    assert "What a further candidate gains" not in report(run).read_text(encoding="utf-8")
    assert not (run / NAME).exists()


def test_a_run_with_one_candidate_has_none(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 5, arms=(Arm(1, 1.0),))
    change(tmp_path / "run", models=MODELS)
    assert write_gains(tmp_path / "run") is None


def test_candidates_after_a_preprompt_are_left_out(tmp_path: Path) -> None:
    plain, distilled = Arm(3, 1.0), Arm(5, 1.0, preprompt="safety")
    item = record(1, Random(0), (plain, distilled, plain))
    (trace,) = traces(written(tmp_path / "run", [item]), {})
    rewards = [answer.reward.combined for answer in item.selection.scored]
    assert len(rewards) == 11, "none failed"
    assert trace.rewards == rewards[:3] + rewards[8:]
    assert trace.is_safety == item.selection.prompt.is_safety


WAVES = DrawnWaves(requested=16, start=4, step=2, count=3, stopped_by="gain")


def drawn(*arms: Arm) -> Record:
    item = record(1, Random(0), arms or (Arm(8, 1.0, waves=WAVES),))
    return replace(item, selection=replace(item.selection, waves=3, stopped_by="gain"))


def test_waves_are_those_that_were_drawn() -> None:
    item = drawn()
    trace = traced(item, is_budgeted=False)
    assert trace is not None
    assert (len(trace.rewards), trace.waves) == (8, (4, 2))
    assert traced(item, is_budgeted=True) == replace(trace, rewards=trace.rewards[:4], waves=None)
    exact = replace(item, arms=(Arm(8, 1.0),), selection=replace(item.selection, waves=None, stopped_by=None))
    assert traced(exact, is_budgeted=False) == replace(trace, waves=None)


def test_waves_of_several_arms_do_not_count() -> None:
    assert traced(drawn(Arm(4, 0.7, waves=WAVES), Arm(4, 1.0, waves=WAVES)), is_budgeted=False) is None
