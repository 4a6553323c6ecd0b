"""The table of a running server: fixed while it lives, written with what it has served, and never damaged."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.fakes import candidate
from winnow.models.combiner import combine
from winnow.models.errors import GainsError
from winnow.models.gains import GainTable, Trace
from winnow.models.types import Prompt, ScoredCandidate, Selection, Timings
from winnow.server import served_gains
from winnow.server.pipeline.waves import Waves
from winnow.server.served_gains import ServedGains


def selection(k: int = 4, **fields: object) -> Selection:
    scored = tuple(ScoredCandidate(candidate(index), combine(False, 3.0, float(index % 3) - 1)) for index in range(k))
    timings = Timings(0.0, 0.0, 0.0, 0.0, 0.0)
    return Selection(Prompt((1,)), "llama2", scored, tuple(range(k)), (), timings, **fields)  # type: ignore[arg-type]


def test_a_new_file_is_made_of_what_is_served(tmp_path: Path) -> None:
    path = tmp_path / "gains.json"
    gains = ServedGains.open(path, "models")
    assert not gains.table.knows
    gains.save()
    assert not path.exists(), "nothing has been served"
    for _ in range(3):
        gains.observe(selection(), None)
    gains.observe(selection(waves=1, stopped_by="reward"), Waves(4, 4, 0.5))
    gains.save()
    written = GainTable.read(path, "models")
    assert (written.prompts, written.knows) == (4, True)
    assert not gains.table.knows, "it is fixed while the process lives"
    gains.observe(selection(), None)
    gains.save()
    assert GainTable.read(path, "models").prompts == 5


def test_a_selection_that_was_cut_short_teaches_nothing(tmp_path: Path) -> None:
    gains = ServedGains.open(tmp_path / "gains.json", "models")
    gains.observe(selection(truncated_by="deadline"), None)
    gains.save()
    assert not gains.path.exists()


def test_a_table_of_other_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gains.json"
    GainTable.learn("others", [Trace([0.1, 0.2], False)]).write(path)
    with pytest.raises(GainsError, match="other models"):
        ServedGains.open(path, "models")


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GainsError, match="folder does not exist"):
        ServedGains.open(tmp_path / "none" / "gains.json", "models")


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    gains = ServedGains.open(folder / "gains.json", "models")
    gains.observe(selection(), None)
    folder.rmdir()
    gains.save()
    assert "cannot be written" in caplog.text


async def test_it_is_saved_from_time_to_time_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_gains, "SAVE_SECONDS", 0.01)
    path = tmp_path / "gains.json"
    gains = ServedGains.open(path, "models")
    saving = asyncio.create_task(gains.keep_saving())
    gains.observe(selection(), None)
    for _ in range(500):
        if path.exists():
            break
        await asyncio.sleep(0.01)
    assert GainTable.read(path, "models").prompts == 1
    gains.observe(selection(), None)
    saving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await saving
    assert GainTable.read(path, "models").prompts == 2
