"""A store is exported as a run is: the same answers give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.runs import manifest
from tests.server.store.databases import served
from winnow.models.combiner import rank
from winnow.models.errors import RunError, SettingsError
from winnow.server.distill.export import ALL_FORMATS, ExportOptions, Format
from winnow.server.distill.export.formats import export as export_run
from winnow.server.distill.journal import Journal
from winnow.server.store.exporting import export, folder_of
from winnow.server.store.location import location
from winnow.server.store.opening import open_store
from winnow.server.store.preparing import Preparer
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.redaction import Redactor

NAMES = Pseudonyms(b"key")
PREPARER = Preparer(Redactor(()), NAMES, 0)
FORMATS: tuple[Format, ...] = tuple(kind for kind in ALL_FORMATS if kind != "token-ids")


def filled(place: str, answers: int, manifest: dict[str, Any], first: int = 0, **fields: Any) -> None:
    store = open_store(location(place))
    rows = [PREPARER.row(served(number, **fields)) for number in range(first, first + answers)]
    store.add(rows, store.origin(manifest))
    store.close()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stores_export_is_that_of_a_run_with_the_same_records(place: str, tmp_path: Path) -> None:
    filled(place, 30, manifest())
    store = open_store(location(place))
    run = tmp_path / "run"
    run.mkdir()
    with Journal(run) as journal:
        for stored in store.records([1], 0):
            journal.append(stored.record)
    (run / "manifest.json").write_bytes(orjson.dumps(store.origins()[0].manifest))
    store.close()
    export_run(run, FORMATS, ExportOptions(), tmp_path / "of-run")
    written = export(location(place), FORMATS, ExportOptions(), tmp_path / "of-store")
    assert files(tmp_path / "of-store") == files(tmp_path / "of-run")
    assert {item.path.name: item.rows for item in written}["sft.jsonl"] == 30


def test_origins_are_exported_together_if_their_rewards_compare(place: str, tmp_path: Path) -> None:
    first = manifest()
    other = {**first, "winnow": "0.3.0"}
    another = {**first, "models": {**first["models"], "safety": {"id": "s", "sha256": "9" * 64}}}  # type: ignore[dict-item]
    filled(place, 2, first)
    filled(place, 2, other, first=2)
    export(location(place), ["sft"], ExportOptions(), tmp_path / "both")
    rows = [orjson.loads(line) for line in (tmp_path / "both" / "sft.jsonl").read_bytes().splitlines()]
    assert [row["run"] for row in rows] == ["origin-1"] * 2 + ["origin-2"] * 2
    assert [row["id"] for row in rows] == [served(number).id for number in range(4)]
    filled(place, 2, another, first=4)
    with pytest.raises(RunError, match="--origin"):
        export(location(place), ["sft"], ExportOptions(), tmp_path / "all")
    [one] = export(location(place), ["sft"], ExportOptions(), tmp_path / "one", origin=1)
    assert one.rows == 2
    with pytest.raises(RunError, match="no origin 9"):
        export(location(place), ["sft"], ExportOptions(), tmp_path / "one", origin=9)


def test_an_export_is_noted_with_the_people_whose_words_it_holds(place: str, tmp_path: Path) -> None:
    filled(place, 2, manifest(), user="anna")
    filled(place, 2, manifest(), first=2)
    export(location(place), ["sft", "kto"], ExportOptions(), tmp_path / "out")
    store = open_store(location(place))
    done = store.forget(NAMES.of_user("anna"), 2_000_000_000)
    store.close()
    assert [(one.path, one.formats) for one in done.exports] == [(str(tmp_path / "out"), "sft,kto")]
    export(location(place), ["sft"], ExportOptions(), tmp_path / "later")
    assert len((tmp_path / "later" / "sft.jsonl").read_bytes().splitlines()) == 2


def test_an_answer_with_an_index_beyond_its_candidates_is_exported(place: str, tmp_path: Path) -> None:
    """Regression: an older version lost a finished candidate and counted one less; no export passed such an answer."""
    told = served(0)
    kept = (told.selection.scored[0], told.selection.scored[-1])
    lossy = replace(told.selection, scored=kept, ranking=rank(kept, told.selection.combiner), failures=())
    assert kept[-1].candidate.index > lossy.candidates == 2
    store = open_store(location(place))
    store.add([PREPARER.row(replace(told, selection=lossy))], store.origin(manifest()))
    [read] = store.records([1], 0)
    assert read.record.selection.ranking == lossy.ranking
    assert [arm.temperature for arm in read.record.arms] == [told.temperature]
    store.close()
    written = export(location(place), FORMATS, ExportOptions(), tmp_path / "out")
    assert {item.path.name: item.rows for item in written}["candidates.parquet"] == 2


def test_what_has_expired_is_left_out_though_it_is_still_there(place: str, tmp_path: Path) -> None:
    store = open_store(location(place))
    rows = [replace(PREPARER.row(served(0)), expires=1), PREPARER.row(served(1))]
    store.add(rows, store.origin(manifest()))
    store.close()
    [written] = export(location(place), ["sft"], ExportOptions(), tmp_path / "out")
    assert written.rows == 1


def test_an_export_that_cannot_be_is_refused(place: str, tmp_path: Path) -> None:
    open_store(location(place)).close()
    with pytest.raises(RunError, match="no answers"):
        export(location(place), ["sft"], ExportOptions(), tmp_path / "out")
    with pytest.raises(RunError, match="--merge"):
        export(location(place), ["sft"], ExportOptions(merge=(tmp_path,)), tmp_path / "out")
    with pytest.raises(SettingsError, match="no store"):
        export(location(str(tmp_path / "none.db")), ["sft"], ExportOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_default_folder_is_beside_the_file() -> None:
    assert folder_of(location("a/winnow.db")) == Path("a/winnow-export")
    assert folder_of(location("postgresql://h/d")) == Path("store-export")
