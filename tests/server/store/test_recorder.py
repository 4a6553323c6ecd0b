"""The recorder: answers are handed over at once whatever the store does, and what is lost is counted."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live import wait_until
from tests.server.store.databases import end_sessions, served
from winnow.models.errors import StoreError
from winnow.server.settings import Settings
from winnow.server.settings.values import RecordRule
from winnow.server.store import opening
from winnow.server.store.location import location
from winnow.server.store.preparing import Preparer
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.recorder import Recorder
from winnow.server.store.redaction import DEFAULT_REDACTIONS, Redactor
from winnow.server.store.rows import Served
from winnow.server.store.sqlite import SqliteDatabase
from winnow.server.store.store import Store

PREPARER = Preparer(Redactor(DEFAULT_REDACTIONS), Pseudonyms(b"key"), 0)
SECONDS = 20


def recorder(open_store: Callable[[], Store], rule: RecordRule = "all", **options: int) -> Recorder:
    return Recorder("sqlite", rule, open_store, {"models": {}}, PREPARER, **options)


def impatient(path: Path) -> Store:
    return Store(SqliteDatabase(path, busy_seconds=0.01))


def stored_ids(path: Path) -> list[str]:
    store = Store(SqliteDatabase(path))
    found = [stored.id for stored in store.records([1], 0)]
    store.close()
    return found


@pytest.mark.parametrize(
    ("rule", "asked", "wanted"),
    [
        ("off", None, False),
        ("off", True, False),
        ("opt_in", None, False),
        ("opt_in", True, True),
        ("opt_in", False, False),
        ("all", None, True),
        ("all", True, True),
        ("all", False, False),
    ],
)
def test_a_refusal_holds_whatever_the_rule(rule: RecordRule, asked: bool | None, wanted: bool) -> None:
    assert recorder(lambda: pytest.fail("opened"), rule).wants(asked) is wanted


async def test_a_call_is_answered_between_the_parts_of_a_long_pruning(tmp_path: Path) -> None:
    """Regression: a hundred thousand expired answers held up every call until all of them were deleted."""
    parts, has_begun, is_asked = [], threading.Event(), threading.Event()

    class Expired(Store):
        def prune_some(self, now: int, created_before: int | None = None) -> int:
            parts.append(now)
            has_begun.set()
            is_asked.wait(SECONDS)
            return int(len(parts) < 100)

    writer = recorder(lambda: Expired(SqliteDatabase(tmp_path / "winnow.db")))
    with writer.running():
        assert await asyncio.to_thread(has_begun.wait, SECONDS)
        asked = asyncio.create_task(writer.call(lambda _: len(parts)))
        await asyncio.sleep(0)
        is_asked.set()
        assert await asked == 1
        assert await asyncio.to_thread(wait_until, lambda: len(parts) == 100, SECONDS)


def test_what_was_put_is_written_in_order_before_the_end(tmp_path: Path) -> None:
    writer = recorder(lambda: impatient(tmp_path / "winnow.db"))
    with writer.running():
        for number in range(300):
            writer.put(served(number))
    assert stored_ids(tmp_path / "winnow.db") == [served(number).id for number in range(300)]
    assert (writer.written, writer.drops, writer.waiting, writer.fault) == (300, {}, 0, None)


async def test_a_call_finds_what_was_put_before_it(tmp_path: Path) -> None:
    writer = recorder(lambda: impatient(tmp_path / "winnow.db"))
    with writer.running():
        for number in range(20):
            told = served(number)
            writer.put(told)
            assert await writer.call(lambda store: store.get(told.id, 0)) is not None  # noqa: B023, it is called at once


def test_a_full_queue_drops_and_counts_and_never_waits(tmp_path: Path) -> None:
    opening = threading.Event()

    def slow() -> Store:
        opening.wait(SECONDS)
        return impatient(tmp_path / "winnow.db")

    writer = recorder(slow, max_waiting=10)
    with writer.running():
        for number in range(25):
            writer.put(served(number))
        assert writer.drops == {"queue_full": 15}
        assert writer.waiting == 10
        opening.set()
    assert stored_ids(tmp_path / "winnow.db") == [served(number).id for number in range(10)]


async def fails_then_goes_on(
    writer: Recorder, fault: str, break_it: Callable[[], object], mend: Callable[[], object]
) -> None:
    """Check that answers are dropped and counted while the store is broken, and recorded again once it is mended."""
    with writer.running():
        writer.put(served(1))
        assert await asyncio.to_thread(wait_until, lambda: writer.written == 1, SECONDS)
        break_it()
        for number in range(2, 5):
            writer.put(served(number))
        assert await asyncio.to_thread(wait_until, lambda: writer.drops == {fault: 3}, SECONDS)
        assert (writer.fault, writer.written) == (fault, 1)
        mend()
        writer.put(served(9))
        assert await asyncio.to_thread(wait_until, lambda: writer.written == 2, SECONDS)
        assert writer.fault is None


async def test_a_full_disk_is_counted_and_gone_once_there_is_room(tmp_path: Path) -> None:
    path, limit = tmp_path / "winnow.db", {"pages": 1_000_000}

    def open_store() -> Store:
        database = SqliteDatabase(path)
        store = Store(database)
        database.execute(f"PRAGMA max_page_count = {limit['pages']}")
        return store

    writer = recorder(open_store)
    with writer.running():
        writer.put(served(1))
        assert await asyncio.to_thread(wait_until, lambda: writer.written == 1, SECONDS)
        limit["pages"] = 1  # as many as there are: no page can be added
        await writer.call(lambda store: store._database.execute("PRAGMA max_page_count = 1"))
        long = "word " * 20_000
        writer.put(served(2, question=long))
        assert await asyncio.to_thread(wait_until, lambda: writer.drops == {"full": 1}, SECONDS)
        limit["pages"] = 1_000_000
        writer.put(served(3, question=long))
        assert await asyncio.to_thread(wait_until, lambda: writer.written == 2, SECONDS)


@pytest.mark.parametrize(("record", "reads"), [("all", 1), ("off", 0)])
async def test_the_weights_are_read_at_the_start_and_never_again(
    record: RecordRule, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: each opening read all weights anew, about a second a GiB, in the thread that answers calls."""
    read: list[object] = []

    def identity(*asked: object) -> dict[str, object]:
        read.append(asked)
        return {"models": {}}

    def full(*_: object) -> int:
        raise StoreError("full", "the disk is full")

    monkeypatch.setattr(opening, "served_identity", identity)
    monkeypatch.setattr(Store, "add", full)
    settings = Settings(store=str(tmp_path / "winnow.db"), record=record)
    writer = opening.recorder(settings, settings.chat_template, "llama2")
    assert writer
    assert len(read) == reads, "before a server is ready"
    with writer.running():
        for number in range(1, 4):
            writer.put(served(number))
            await writer.call(Store.last_number)
            assert writer.drops == {"full": number}
    assert len(read) == reads


async def test_a_connection_that_was_ended_while_idle_costs_no_answer_and_no_call(postgresql_url: str) -> None:
    """Regression: the first batch afterwards was dropped, and the first call failed."""
    writer = recorder(lambda: opening.open_store(location(postgresql_url)))
    with writer.running():
        assert await writer.call(Store.last_number) == 0
        end_sessions(postgresql_url)
        for number in range(40):
            writer.put(served(number))
        assert await writer.call(Store.last_number) == 40
        end_sessions(postgresql_url)
        assert await writer.call(Store.last_number) == 40
    assert (writer.written, writer.drops, writer.fault) == (40, {}, None)


async def test_a_locked_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    await fails_then_goes_on(
        recorder(lambda: impatient(path)),
        "locked",
        lambda: other.execute("BEGIN EXCLUSIVE"),
        lambda: other.execute("ROLLBACK"),
    )
    other.close()


async def test_a_corrupt_file_is_counted_and_a_restored_one_used(tmp_path: Path) -> None:
    path, copy = tmp_path / "winnow.db", tmp_path / "copy.db"

    def damage() -> None:
        shutil.copyfile(path, copy)
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))

    await fails_then_goes_on(recorder(lambda: impatient(path)), "corrupt", damage, lambda: shutil.copyfile(copy, path))


async def test_a_store_that_is_corrupt_at_the_start_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "winnow.db"
    path.write_text("this is no database, and long enough to have been one " * 100)
    writer = recorder(lambda: impatient(path))
    with writer.running():
        writer.put(served(1))
        assert await asyncio.to_thread(wait_until, lambda: writer.drops == {"corrupt": 1}, SECONDS)
        with pytest.raises(StoreError):
            await writer.call(lambda store: store.get("x", 0))
        writer.put(served(2))
    assert writer.drops == {"corrupt": 2}
    assert "answers are not recorded" in caplog.text
    assert path.read_text().startswith("this is no database")


async def test_a_bug_in_the_store_does_not_end_the_writer(tmp_path: Path) -> None:
    def open_store() -> Store:
        raise ZeroDivisionError

    writer = recorder(open_store)
    with writer.running():
        writer.put(served(1))
        assert await asyncio.to_thread(wait_until, lambda: writer.drops == {"unusable": 1}, SECONDS)
        with pytest.raises(ZeroDivisionError):
            await writer.call(lambda store: store.get("x", 0))


async def test_an_answer_that_cannot_be_written_down_costs_no_other(tmp_path: Path) -> None:
    writer = recorder(lambda: impatient(tmp_path / "winnow.db"))
    with writer.running():
        writer.put(served(1))
        writer.put(served(2, question="\ud800"))
        writer.put(served(3))
    assert stored_ids(tmp_path / "winnow.db") == [served(1).id, served(3).id]
    assert writer.drops == {"unwritable": 1}


def test_what_matches_is_redacted_before_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    writer = recorder(lambda: impatient(path))
    secrets = "anna@example.org", "+44 20 7946 0958", "4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32"
    with writer.running():
        writer.put(served(1, question=f"I am {', '.join(secrets)}; 2026-11-26, 12345."))
    content = path.read_bytes()
    assert not any(secret.encode() in content for secret in secrets)
    assert b"I am [redacted], [redacted], [redacted], [redacted]; 2026-11-26, 12345." in content


def test_nothing_of_a_person_is_stored_but_digests(tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    writer = recorder(lambda: impatient(path))
    with writer.running():
        writer.put(served(1, user="anna-1791", identifier="bert-1792", owner="deadbeef"))
    content = path.read_bytes()
    assert not any(name in content for name in (b"anna-1791", b"bert-1792", b"deadbeef"))
    assert PREPARER.pseudonyms.of_user("anna-1791").encode() in content


WRITING = """
import itertools, sys
from pathlib import Path
from tests.server.store.databases import served
from tests.server.store.test_recorder import impatient, recorder
writer = recorder(lambda: impatient(Path(sys.argv[1])))
with writer.running():
    for number in itertools.count():
        writer.put(served(number, seed=1))
        if number % 20 == 0:
            while writer.written <= number:
                pass
            print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_a_killed_writer_leaves_a_sound_file_with_all_that_it_had_written(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "winnow.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout
    told = [int(process.stdout.readline()) for _ in range(lines)][-1]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = stored_ids(path)
    assert found[: told + 1] == [served(number).id for number in range(told + 1)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_the_end_waits_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.server.store.recorder.CLOSE_SECONDS", 0.05)
    release = threading.Event()

    def hangs() -> Store:
        release.wait(SECONDS)
        raise StoreError("unreachable", "gone")

    writer = recorder(hangs)
    started = time.monotonic()
    with writer.running():
        writer.put(served(1))
    assert writer.waiting == 1
    release.set()
    assert time.monotonic() - started < SECONDS
    assert wait_until(lambda: not writer._thread.is_alive(), SECONDS)


REPORTING = """
import asyncio, sys, threading
from pathlib import Path
from tests.server.store.test_recorder import SECONDS, recorder
from winnow.server.store.sqlite import SqliteDatabase
from winnow.server.store.store import Store
begun = threading.Event()

def report(store):
    begun.set()
    threading.Event().wait()

async def serve(writer):
    asked = asyncio.create_task(writer.aside(report))
    assert await asyncio.to_thread(begun.wait, SECONDS)
    asked.cancel()

writer = recorder(lambda: Store(SqliteDatabase(Path(sys.argv[1]))))
with writer.running():
    asyncio.run(serve(writer))
print("ended")
"""


def test_a_report_that_is_being_made_does_not_keep_the_process(tmp_path: Path) -> None:
    """Regression: after the server's end, its process went on until the report or the batch was made."""
    program = [sys.executable, "-c", REPORTING, str(tmp_path / "winnow.db")]
    done = subprocess.run(program, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=3 * SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_handing_over_copies_nothing(tmp_path: Path) -> None:
    told = served(1)
    assert isinstance(told, Served)
    assert told.characters == sum(len(item.candidate.text) for item in told.selection.scored) + sum(
        len(message.content) for message in told.selection.prompt.messages
    )
