"""The contract of a store, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import timeless
from tests.server.store.databases import served
from winnow.models.errors import StoreError
from winnow.server.store.location import location
from winnow.server.store.opening import database, open_store
from winnow.server.store.preparing import DAY, Preparer
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.redaction import Redactor
from winnow.server.store.rows import NewRow, Served
from winnow.server.store.schema import Migration, migrate, migrations
from winnow.server.store.store import PAGE, Store

NAMES = Pseudonyms(b"key")
PREPARER = Preparer(Redactor(()), NAMES, 90)
NOW = 1_700_000_000
MANIFEST = {"models": {"policy": {"id": "a"}}, "settings": {"combiner": "llama2"}}


def row(number: int, **fields: object) -> NewRow:
    return PREPARER.row(served(number, **fields))  # type: ignore[arg-type]


def filled(place: str, *rows: NewRow) -> Store:
    store = open_store(location(place))
    store.add(rows, store.origin(MANIFEST))
    return store


def test_an_answer_is_read_back_as_it_was_served(place: str) -> None:
    told: Served = served(1, user="anna", owner="k", refusal="No.\0")
    told = replace(told, refusal="No.")
    store = filled(place, PREPARER.row(told))
    found = store.get(told.id, NOW)
    assert found
    selection = replace(told.selection, prompt=replace(told.selection.prompt, token_ids=()))
    assert timeless(found.record).selection == timeless(replace(found.record, selection=selection)).selection
    assert (found.id, found.created, found.model, found.refusal) == (told.id, told.created, told.model, "No.")
    assert found.expires == told.created + 90 * DAY
    assert (found.owner, found.people) == (NAMES.of_owner("k"), {NAMES.of_user("anna")})
    assert found.record.line == found.number == 1
    assert found.record.arms[0].candidates == told.selection.candidates
    store.close()


@pytest.mark.parametrize("text", ["\0", "a\u2028b", "日本 🎈", "'; DROP TABLE selection; --", "%s ? $1 ${serial}", ""])
def test_texts_are_kept_as_they_are(place: str, text: str) -> None:
    store = filled(place, row(1, question=text))
    found = store.get(served(1).id, NOW)
    assert found
    assert [message.content for message in found.record.messages] == [text]
    store.close()


def test_an_id_is_stored_once(place: str) -> None:
    store = filled(place, row(1))
    store.add([row(1), row(2)], store.origin(MANIFEST))
    assert store.counts(NOW).selections == 2
    store.close()


def test_numbers_are_never_used_again(place: str) -> None:
    store = filled(place, row(1), row(2))
    assert store.delete(row(2).id)
    assert not store.delete(row(2).id)
    store.add([row(3)], store.origin(MANIFEST))
    last = store.get(row(3).id, NOW)
    assert last
    assert last.number > 2
    store.close()


def test_an_origin_is_its_manifest(place: str) -> None:
    store = filled(place, row(1))
    other = store.origin({**MANIFEST, "settings": {"combiner": "safe_first"}})
    assert store.origin(dict(reversed(MANIFEST.items()))) == 1 != other
    assert [(origin.number, origin.selections) for origin in store.origins()] == [(1, 1)]
    store.add([row(2)], other)
    assert [(origin.number, origin.selections) for origin in store.origins()] == [(1, 1), (other, 1)]
    assert store.origins()[0].manifest == MANIFEST
    store.close()


def test_a_batch_is_added_whole_or_not_at_all(place: str) -> None:
    store = filled(place)
    with pytest.raises(StoreError):
        store.add([row(1), replace(row(2), model=None)], 1)  # type: ignore[arg-type]
    assert store.get(row(1).id, NOW) is None
    store.close()


def test_every_answer_is_read_in_order_over_pages(place: str) -> None:
    one = row(0)
    ids = [f"chatcmpl-{number:032x}" for number in range(2 * PAGE)]
    store = filled(place, *(replace(one, id=id) for id in ids))
    assert [stored.id for stored in store.records([1], NOW)] == ids
    assert list(store.records([2], NOW)) == list(store.records([], NOW)) == []
    store.close()


def test_prune_deletes_what_has_expired_and_what_is_older(place: str) -> None:
    kept, gone = row(1), replace(row(2), expires=NOW)
    forever, old = replace(row(3), expires=None), replace(row(4), created=NOW - 1)
    store = filled(place, kept, gone, forever, old)
    assert store.counts(NOW).expired == 1
    assert store.prune(NOW) == 1
    assert store.prune(NOW, created_before=NOW) == 1
    assert [stored.id for stored in store.records([1], NOW)] == [kept.id, forever.id]
    store.close()


def test_a_forgotten_user_is_in_no_row_and_does_not_come_back(place: str) -> None:
    anna, bert = NAMES.of_user("anna"), NAMES.of_user("bert")
    store = filled(place, row(1, user="anna"), row(2, identifier="anna"), row(3, user="bert"), row(4))
    store.note_export("/exports/one", ("sft", "kto"), [anna, bert, anna], NOW)
    store.note_export("/exports/two", ("sft",), [bert], NOW)
    done = store.forget(anna, NOW + 10)
    assert (done.selections, [export.path for export in done.exports]) == (2, ["/exports/one"])
    # A writer still held one of them; and one that was begun before, by the same clock.
    assert store.add([row(5, user="anna"), row(6, user="bert")], 1) == 1
    assert store.add([replace(row(7, user="anna"), created=NOW + 11)], 1) == 1
    assert [stored.people for stored in store.records([1], NOW)] == [{bert}, set(), {bert}, {anna}]
    assert store.forget(NAMES.of_user("nobody"), NOW).selections == 0
    assert store.counts(NOW).forgotten == 2
    store.close()


def test_exports_are_named_after_the_answers_have_expired(place: str) -> None:
    store = filled(place, replace(row(1, user="anna"), expires=NOW))
    store.note_export("/exports/one", ("sft",), [NAMES.of_user("anna")], NOW)
    store.prune(NOW)
    assert [export.path for export in store.forget(NAMES.of_user("anna"), NOW).exports] == ["/exports/one"]
    store.close()


def test_another_key_is_refused(place: str) -> None:
    open_store(location(place), NAMES).close()
    open_store(location(place), Pseudonyms(b"key")).close()
    open_store(location(place)).close()  # what needs no key asks for none
    with pytest.raises(StoreError, match="another key"):
        open_store(location(place), Pseudonyms(b"other"))


def test_two_processes_may_make_the_schema_at_once(place: str) -> None:
    opened: list[Store] = []
    threads = [threading.Thread(target=lambda: opened.append(open_store(location(place)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for store in opened:
        store.close()


def test_a_newer_store_is_refused_and_left_alone(place: str) -> None:
    filled(place, row(1)).close()
    steps = migrations()
    connection = database(location(place))
    migrate(connection, [*steps, Migration(len(steps) + 1, ("CREATE TABLE later (number ${serial})",))])
    connection.close()
    with pytest.raises(StoreError, match="a newer Winnow"):
        open_store(location(place))
    connection = database(location(place))
    assert connection.execute("SELECT count(*) FROM selection") == [(1,)]
    connection.close()


def test_a_failed_migration_leaves_nothing(place: str) -> None:
    filled(place).close()
    steps = migrations()
    connection = database(location(place))
    broken = Migration(len(steps) + 1, ("CREATE TABLE later (number BIGINT)", "CREATE NONSENSE"))
    with pytest.raises(StoreError):
        migrate(connection, [*steps, broken])
    assert not connection.has_table("later")
    migrate(connection, steps)
    connection.close()


def test_another_programs_tables_are_left_alone(place: str) -> None:
    connection = database(location(place))
    connection.execute("CREATE TABLE selection (theirs BIGINT)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        open_store(location(place))
    connection = database(location(place))
    assert not connection.has_table("migration")
    connection.close()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_no_password_is_shown() -> None:
    shown = str(location("postgresql://anna:secret@db.example:5433/winnow?sslmode=require"))
    assert shown == "postgresql://db.example:5433/winnow"


def test_a_server_that_is_not_there_is_unreachable_and_its_url_is_not_told() -> None:
    with pytest.raises(StoreError) as caught:
        open_store(location("postgresql://anna:secret@127.0.0.1:1/winnow"))
    assert caught.value.reason == "unreachable"
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_forgotten_user_is_in_no_byte_of_the_file(tmp_path: Path) -> None:
    words = "sesame opens the cave"
    store = filled(str(tmp_path / "winnow.db"), row(1, user="anna", question=words), *(row(n) for n in range(2, 40)))
    assert any(words.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.forget(NAMES.of_user("anna"), NOW + 10)
    assert not any(words.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


def test_forgetting_fails_while_another_process_reads_and_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.server.store.sqlite.FIRST_SOUND_WAL", (3, 0, 0))
    monkeypatch.setattr("winnow.server.store.sqlite.BUSY_SECONDS", 0.0)
    words = "sesame opens the cave"
    store = filled(str(tmp_path / "winnow.db"), row(1, user="anna", question=words), row(2))
    store.compact()
    reader = sqlite3.connect(tmp_path / "winnow.db", isolation_level=None)
    assert reader.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM selection").fetchall()
    with pytest.raises(StoreError) as caught:
        store.forget(NAMES.of_user("anna"), NOW + 10)
    assert caught.value.reason == "locked"
    assert any(words.encode() in path.read_bytes() for path in tmp_path.iterdir())
    reader.close()
    store.forget(NAMES.of_user("anna"), NOW + 10)
    assert not any(words.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


def test_postgresql_reads_what_others_have_committed_whatever_the_roles_default(postgresql_url: str) -> None:
    connection = database(location(f"{postgresql_url}%20-cdefault_transaction_isolation%3Dserializable"))
    with connection.transaction():
        assert connection.execute("SHOW transaction_isolation") == [("read committed",)]
    connection.close()


def test_pages_have_every_answer_once_and_the_newest_first(place: str) -> None:
    people: list[dict[str, object]] = [
        {},
        {"user": "anna"},
        {"identifier": "anna"},
        {"user": "anna", "identifier": "b"},
    ]
    rows = [row(number, **people[number % 4]) for number in range(1, 30)]
    store = filled(place, replace(row(99), expires=NOW), *rows)

    def pages(digest: str | None) -> list[str]:
        found, before = [], None
        while page := store.newest(4, NOW, before, digest):
            found += [one.id for one in page]
            before = page[-1].number
        return found

    assert pages(None) == [one.id for one in reversed(rows)]
    anna = NAMES.of_user("anna")
    assert pages(anna) == [one.id for one in reversed(rows) if anna in one.people]
    assert pages(NAMES.of_user("nobody")) == []
    store.close()


def test_people_are_those_whose_answers_are_read(place: str) -> None:
    store = filled(place, row(1, user="anna"), row(2), row(3, user="c", identifier="d"))
    store.add([replace(row(4, user="expired"), expires=NOW)], 1)
    store.add([row(5, user="another")], store.origin({**MANIFEST, "n": 2}))
    last = store.last_number()
    for origins, until in (([1], last), ([1, 2], last), ([2], last), ([1], 1)):
        expected = {digest for one in store.records(origins, NOW, until) for digest in one.people}
        assert store.people(origins, NOW, until) == expected
    store.close()


def test_exports_are_listed_the_newest_first(place: str) -> None:
    store = filled(place, row(1))
    for number in range(5):
        store.note_export(f"export-{number}", ["sft", "kto"], [], NOW + number)
    assert [(one.path, one.created, one.formats) for one in store.exports(2)] == [
        ("export-4", NOW + 4, "sft,kto"),
        ("export-3", NOW + 3, "sft,kto"),
    ]
    store.close()
