"""Recording by `winnow serve` as a process: starts that are refused, ends of every kind, and a broken file."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.live import WINNOW, LiveServer, question
from tests.server.store.databases import end_sessions
from winnow.models.errors import SettingsError
from winnow.server.settings import Settings
from winnow.server.store.location import location
from winnow.server.store.opening import open_existing, require_store

SCRIPTED = (sys.executable, "-m", "tests.scripted_serve")
RECORDING = ("--no-canary", "--record", "all", "--store")


def stored(path: Path) -> list[str]:
    store = open_existing(location(str(path)))
    found = [one.id for one in store.records([origin.number for origin in store.origins()], 0)]
    store.close()
    return found


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("nowhere/winnow.db", "does not exist"),
        (".", "is a folder"),
        ("", "name a file"),
        ("mysql://anna:secret@db/x", "not served"),
        ("postgresql://anna:secret@127.0.0.1:1/x", "store_key_file"),
    ],
)
def test_a_place_that_cannot_be_right_is_refused(
    store: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=said) as caught:
        require_store(Settings(store=store))
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    for content in ("", "short", "日本"):
        (tmp_path / "key").write_text(content)
        with pytest.raises(SettingsError, match="store_key_file"):
            require_store(Settings(store=str(tmp_path / "winnow.db"), store_key_file=tmp_path / "key"))
    (tmp_path / "key").unlink()
    require_store(Settings(store=str(tmp_path / "winnow.db"), store_key_file=tmp_path / "key"))
    made = (tmp_path / "key").read_text()
    require_store(Settings(store=str(tmp_path / "winnow.db"), store_key_file=tmp_path / "key"))
    assert (tmp_path / "key").read_text() == made


def test_a_recording_without_a_store_is_one_line_before_engines_start(tmp_path: Path) -> None:
    flags = ["--port", "0", "--record", "all"]
    done = subprocess.run([WINNOW, "serve", *flags], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "record is all, but there is no store" in done.stderr


def test_a_stopped_server_has_written_all_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    ids = []
    for _ in range(2):
        with LiveServer.start(*RECORDING, str(path), program=SCRIPTED) as server:
            ids += [server.chat(max_tokens=1).json()["id"] for _ in range(5)]
            with server.http as http:
                assert http.get(f"/v1/chat/completions/{ids[0]}").json()["id"] == ids[0]
            assert server.stop() == 0
    assert stored(path) == ids


def test_a_killed_server_leaves_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    with LiveServer.start(*RECORDING, str(path), program=SCRIPTED) as server:
        answered: list[str] = []
        enough = threading.Event()

        def ask() -> None:
            try:
                while True:
                    answered.append(server.chat(max_tokens=1).json()["id"])
                    if len(answered) == 20:
                        enough.set()
            except httpx.HTTPError:
                pass

        asking = threading.Thread(target=ask)
        asking.start()
        assert enough.wait(60)
        with server.http as http:  # it waits its turn in the queue: what was put before it is on the disk
            assert http.get(f"/v1/chat/completions/{answered[19]}").status_code == 200
        server.process.kill()
        server.process.wait()
        asking.join()
    assert set(answered[:20]) <= set(stored(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_no_acknowledged_annotation_is_lost_by_a_kill(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "winnow.db", set[str]()
    with LiveServer.start(*RECORDING, str(path), program=SCRIPTED) as server, server.http as http:
        for number in range(4):
            http.post("/v1/chat/completions", json=question(f"Question {number}?"))
        batch = {"name": "b", "policy": "random", "pairs": 1000, "overlap": 20}
        assert http.post("/v1/annotation/batches", json=batch).status_code == 200
        began = threading.Event()
        annotating = threading.Thread(target=annotate, args=(server, acknowledged, began))
        annotating.start()
        assert began.wait(120)
        annotating.join(random.uniform(0, 0.3))
        server.process.kill()
        server.process.wait()
        annotating.join()
    assert len(stored(path)) == 4, "the store opens"
    connection = sqlite3.connect(path)
    kept = {submission for (submission,) in connection.execute("SELECT submission FROM annotation")}
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert acknowledged <= kept
    assert len(kept - acknowledged) <= 1, "at most the one whose answer was on its way"


def annotate(server: LiveServer, acknowledged: set[str], began: threading.Event) -> None:
    """Annotate pairs until the server is gone, each pair again and again: revisions are annotations, too."""
    choice = {"choice": 3, "left_safe": True, "right_safe": True, "flags": [], "comment": "", "active_ms": 1}
    with contextlib.suppress(httpx.HTTPError), server.http as http:
        for number in itertools.count():
            pair = http.post("/v1/annotation/lease", json={}).json()["pair"]
            pair = pair or http.post("/v1/annotation/undo", json={}).json()["pair"]
            submission = f"submission-{number}"
            body = {"submission": submission, "lease": pair["lease"], **choice}
            assert http.post("/v1/annotation/annotations", json=body).status_code == 200
            acknowledged.add(submission)
            if number == 2:
                began.set()


def test_a_broken_file_stops_no_server_and_is_not_touched(tmp_path: Path) -> None:
    path, content = tmp_path / "winnow.db", b"no database at all " * 1000
    path.write_bytes(content)
    with LiveServer.start(*RECORDING, str(path), program=SCRIPTED) as server:
        assert server.chat(max_tokens=1).status_code == 200
        with server.http as http:
            assert http.get(f"/v1/chat/completions/chatcmpl-{0:032x}").status_code == 503
            recorded = http.get("/version").json()["recording"]
        assert (recorded["fault"], recorded["dropped"]) == ("corrupt", {"corrupt": 1})
        assert server.stop() == 0
    assert path.read_bytes() == content


def test_postgresql_that_goes_away_stops_nothing(postgresql_url: str, tmp_path: Path) -> None:
    key = tmp_path / "store.key"
    flags = (*RECORDING, postgresql_url, "--store-key-file", str(key))
    with LiveServer.start(*flags, program=SCRIPTED) as server, server.http as http:
        id = server.chat(max_tokens=1).json()["id"]
        assert http.get(f"/v1/chat/completions/{id}").json()["id"] == id
        end_sessions(postgresql_url)
        assert [server.chat(max_tokens=1).status_code for _ in range(2)] == [200, 200]
        assert server.stop() == 0
    assert key.stat().st_mode & 0o777 == 0o600
