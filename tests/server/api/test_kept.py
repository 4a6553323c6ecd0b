"""The operator's routes of the store, over HTTP."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import ScriptedServer, question, scripted, wait_until
from tests.server.api.test_stored import get, recording, stored
from winnow.clients.schema import StoredMessages, StoredSelections, StoreStatus
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.kept import EXCERPT
from winnow.server.distill.export import ExportOptions, Format
from winnow.server.settings import Settings
from winnow.server.store import exporting
from winnow.server.store.location import location
from winnow.server.store.opening import key_of
from winnow.server.store.store import Store

SECONDS = 20
FORMATS: tuple[Format, ...] = ("sft", "preferences", "reward", "kto")
ROUTES = [
    ("GET", "/v1/store"),
    ("GET", "/v1/store/selections"),
    ("POST", "/v1/store/forget"),
    ("GET", "/v1/store/export/sft"),
    ("GET", f"/v1/chat/completions/chatcmpl-{0:032x}"),
    ("GET", f"/v1/chat/completions/chatcmpl-{0:032x}/messages"),
    ("DELETE", f"/v1/chat/completions/chatcmpl-{0:032x}"),
]
"""What can be asked of a store."""


@pytest.fixture
def server(tokenizer: Tokenizer, tmp_path: Path) -> Iterator[ScriptedServer]:
    with recording(tokenizer, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def empty(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server whose store has no answers."""
    with recording(tokenizer, tmp_path_factory.mktemp("empty")) as running:
        yield running


def selections(server: ScriptedServer, **parameters: Any) -> StoredSelections:
    with server.http as http:
        answer = http.get("/v1/store/selections", params=parameters)
    assert answer.status_code == 200, answer.text
    return StoredSelections.model_validate(answer.json())


def test_the_store_counts_and_names_its_origins_and_exports(
    server: ScriptedServer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for _ in range(3):
        server.chat()
    with server.http as http:
        assert http.get("/v1/store/export/kto").status_code == 200
        status = StoreStatus.model_validate(http.get("/v1/store").json())
    assert (status.record, status.store, status.retention_days, status.fault) == ("all", "sqlite", 90, None)
    assert (status.selections, status.written, status.waiting, status.dropped) == (3, 3, 0, {})
    assert (status.expired, status.forgotten) == (0, 0)
    assert [origin.answers for origin in status.origins] == [3]
    assert [(export.path, export.formats) for export in status.exports] == [("download", ["kto"])]
    assert status.oldest
    assert status.newest
    assert status.oldest <= status.newest
    assert str(tmp_path) not in status.model_dump_json()


def test_a_list_says_what_was_asked_and_answered(server: ScriptedServer) -> None:
    question_of_many = "Why? " * 100
    told = [server.chat(content, user=user).json() for content, user in (("One?", "anna"), (question_of_many, "bert"))]
    [newest, oldest] = selections(server).data
    assert [newest.id, oldest.id] == [told[1]["id"], told[0]["id"]]
    assert (oldest.prompt, newest.prompt) == ("One?", question_of_many[:EXCERPT])
    for one, answer in ((newest, told[1]), (oldest, told[0])):
        report = answer["best_of_n"]
        winner = next(item for item in report["scored"] if item["rank"] == 0)
        assert one.answer == answer["choices"][0]["message"]["content"]
        assert (one.candidates, one.combined, one.branch) == (4, winner["combined"], winner["branch"])
        assert (one.created, one.expires) == (answer["created"], answer["created"] + 90 * 86_400)
        assert not one.refused
    assert [one.id for one in selections(server, user="anna").data] == [told[0]["id"]]
    assert selections(server, user="nobody").data == []


def test_pages_follow_each_other_until_the_last(server: ScriptedServer) -> None:
    ids = [server.chat().json()["id"] for _ in range(5)]
    found, before = [], None
    while True:
        page = selections(server, limit=2, **({"before": before} if before else {}))
        found.append([one.id for one in page.data])
        before = page.next
        if before is None:
            break
    assert found == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/store/selections?limit=0", "limit"),
        ("/v1/store/selections?limit=201", "limit"),
        ("/v1/store/selections?limit=x", "limit"),
        ("/v1/store/selections?before=0", "before"),
        ("/v1/store/selections?before=9223372036854775808", "before"),
        ("/v1/store/selections?user=", "user"),
        ("/v1/store/selections?befor=9", None),
        ("/v1/store/export/sft?origin=0", "origin"),
        ("/v1/store/export/sft?origin=7", "origin"),
        ("/v1/store/export/sft", "origin"),
        ("/v1/store/export/parquet", "format"),
        ("/v1/store/export/token-ids", "format"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(empty: ScriptedServer, path: str, param: str | None) -> None:
    """The export is refused because this store has no answers."""
    with empty.http as http:
        answer = http.get(path)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_request")


def test_annotations_are_counted_and_go_with_a_forgotten_user(server: ScriptedServer, tmp_path: Path) -> None:
    server.chat("For anna?", user="anna")
    server.chat("For bert?", user="bert")
    comment = "the left one sounds like xylophone"
    with server.http as http:
        batch = {"name": "b", "policy": "random", "pairs": 2}
        assert http.post("/v1/annotation/batches", json=batch).json()["pairs"] == 2
        for number in range(2):
            pair = http.post("/v1/annotation/lease", json={}).json()["pair"]
            choice = {"choice": 2, "left_safe": True, "right_safe": True, "flags": [], "comment": comment}
            body = {"submission": f"submission-{number}", "lease": pair["lease"], "active_ms": 1, **choice}
            assert http.post("/v1/annotation/annotations", json=body).status_code == 200
        undone = http.post("/v1/annotation/undo", json={}).json()["pair"]
        revised = {**body, "submission": "submission-2", "lease": undone["lease"], "comment": ""}
        assert http.post("/v1/annotation/annotations", json=revised).json()["revision"] == 2
        assert [one.annotations for one in selections(server).data] == [1, 1]
        counts = http.get("/v1/store").json()
        assert (counts["annotations"], counts["batches"]) == (2, 1)
        done = [http.post("/v1/store/forget", json={"user": user}).json() for user in ("anna", "bert")]
        assert [(one["selections"], one["annotations"]) for one in done] == [(1, 1), (1, 1)]
        for file in tmp_path.iterdir():
            assert b"xylophone" not in file.read_bytes(), file


@pytest.mark.parametrize("body", [{}, {"user": ""}, {"user": 7}, {"user": "anna", "users": []}, {"user": None}])
def test_a_user_to_forget_is_named(empty: ScriptedServer, body: dict[str, Any]) -> None:
    with empty.http as http:
        assert http.post("/v1/store/forget", json=body).status_code == 400


def test_a_download_is_the_file_of_an_export(server: ScriptedServer, tmp_path: Path) -> None:
    for number in range(6):
        server.chat(f"Question {number}? \u2028 é", temperature=1.5)
    with server.http as http:
        answers = {format: http.get(f"/v1/store/export/{format}") for format in FORMATS}
    written = exporting.export(location(str(tmp_path / "winnow.db")), FORMATS, ExportOptions(), tmp_path / "out")
    for (format, answer), file in zip(answers.items(), written, strict=True):
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == f'attachment; filename="winnow-{format}.jsonl"'
        assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("no-store", "application/jsonl")
        assert answer.content == file.path.read_bytes()
        assert file.rows


def test_a_download_names_whose_words_it_has_before_its_first_line(server: ScriptedServer) -> None:
    server.chat(user="anna")
    with server.http as http:
        with http.stream("GET", "/v1/store/export/sft") as answer:
            assert answer.status_code == 200
        done = http.post("/v1/store/forget", json={"user": "anna"}).json()
    assert (done["selections"], [(one["path"], one["formats"]) for one in done["exports"]]) == (
        1,
        [("download", ["sft"])],
    )


def test_the_writer_does_not_wait_for_a_download(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are held back until another answer has been recorded and read."""
    first = server.chat().json()["id"]
    go_on, closed = threading.Event(), threading.Event()
    chunks, close = exporting.Download.chunks, exporting.Download.close

    def held(self: exporting.Download) -> Iterator[bytes]:
        assert go_on.wait(SECONDS)
        yield from chunks(self)

    def noted(self: exporting.Download) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(exporting.Download, "chunks", held)
    monkeypatch.setattr(exporting.Download, "close", noted)
    with server.http as http, http.stream("GET", "/v1/store/export/sft") as answer:
        second = server.chat().json()["id"]
        assert get(server, second).status_code == 200
        go_on.set()
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["id"] for line in lines] == [first]
    assert closed.wait(SECONDS)


def test_a_download_that_nobody_reads_is_closed(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    close = exporting.Download.close
    monkeypatch.setattr(exporting.Download, "close", lambda self: (close(self), closed.set()))

    def endless(self: exporting.Download) -> Iterator[bytes]:
        while True:
            yield b"{}\n" * 10_000

    monkeypatch.setattr(exporting.Download, "chunks", endless)
    server.chat()
    with server.http as http, http.stream("GET", "/v1/store/export/sft") as answer:
        next(answer.iter_raw())
    assert closed.wait(SECONDS)
    assert server.chat().status_code == 200


def test_forgetting_waits_for_what_is_not_written_yet(server: ScriptedServer, tmp_path: Path) -> None:
    told = [server.chat(user=user).json()["id"] for user in ("anna", "bert", "anna")]
    told.append(server.chat(safety_identifier="anna").json()["id"])
    with server.http as http:
        done = http.post("/v1/store/forget", json={"user": "anna"})
        assert (done.status_code, done.json()) == (200, {"selections": 3, "annotations": 0, "exports": []})
        assert http.get("/v1/store").json()["forgotten"] == 1
        assert http.post("/v1/store/forget", json={"user": "anna"}).json()["selections"] == 0
    assert [one.id for one in stored(tmp_path)] == [told[1]]


def test_whoever_is_recorded_can_be_forgotten(server: ScriptedServer) -> None:
    """Regression: the id in a chat request has no limit but the body's, and a longer one could not be forgotten."""
    user = "u" * 20_000
    assert server.chat(user=user).status_code == 200
    with server.http as http:
        assert http.post("/v1/store/forget", json={"user": user}).json()["selections"] == 1


def test_forgetting_may_take_longer_than_other_calls(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the file anew, which takes its time if that has gigabytes."""
    monkeypatch.setattr("winnow.server.store.recorder.CALL_SECONDS", 0.01)
    forget = Store.forget

    def slow(self: Store, *arguments: Any) -> Any:
        time.sleep(0.1)
        return forget(self, *arguments)

    monkeypatch.setattr(Store, "forget", slow)
    with server.http as http:
        assert http.post("/v1/store/forget", json={"user": "anna"}).status_code == 200


def asked(http: httpx.Client, method: str, path: str, **headers: str) -> httpx.Response:
    """Ask for one of the routes."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.request(method, path, json={"user": "anna"} if method == "POST" else None, headers=given)


def test_without_a_store_every_route_says_how_to_have_one(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as bare, bare.http as http:
        for route in ROUTES:
            answer = asked(http, *route)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], "--store" in error["message"]) == (404, "not_stored", True)


def test_a_store_that_cannot_be_used_is_unavailable(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.server.store.sqlite.BUSY_SECONDS", 0.05)
    with recording(tokenizer, tmp_path) as server, server.http as http:
        for user in ("bert", "anna"):
            server.chat(user=user)
        assert http.get("/v1/store").status_code == 200
        other = sqlite3.connect(tmp_path / "winnow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for route in ROUTES:
            answer = asked(http, *route)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable"), route
            assert str(tmp_path) not in answer.text
        other.close()
        for route in ROUTES:
            assert asked(http, *route).status_code == (404 if "chatcmpl" in route[1] else 200), route


def test_foreign_pages_and_hosts_are_refused(server: ScriptedServer) -> None:
    """Acceptance 15; tests/server/web/test_operator.py has it from a page of another origin."""
    server.chat(user="anna")
    with server.http as http:
        for route in ROUTES:
            for headers in (
                {"origin": "https://evil.test"},
                {"origin": "null"},
                {"sec_fetch_site": "cross-site"},
                {"sec_fetch_site": "same-site"},
                {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
            ):
                answer = asked(http, *route, **headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin"), (route, headers)
            for host in ("evil.test", "localhost.evil.test", "127.0.0.1.evil.test:80"):
                answer = asked(http, *route, host=host)
                assert (answer.status_code, answer.json()["error"]["code"]) == (421, "untrusted_host"), (route, host)
        form = http.post("/v1/store/forget", content=b'{"user": "anna"}', headers={"content-type": "text/plain"})
        assert form.status_code == 415
        assert http.get("/v1/store").json()["selections"] == 1


KEYS: dict[str, str] = {role: f"wk-of-{role}-7e21" for role in ("use", "annotate", "operate", "other")}


@pytest.fixture
def locked(tokenizer: Tokenizer, tmp_path: Path) -> Iterator[tuple[Callable[..., Any], str]]:
    """Ask a server with keys, whose one answer belongs to the key `use`; its id."""
    file = tmp_path / "keys"
    file.write_text("\n".join(f"{key} {'use' if role == 'other' else role}" for role, key in KEYS.items()))
    keys = ApiKeys.of(Settings(api_keys_file=file))
    with recording(tokenizer, tmp_path, found=keys) as server, server.http as http:

        def ask(role: str, method: str, path: str, **fields: Any) -> Any:
            return http.request(method, path, headers={"authorization": f"Bearer {KEYS[role]}"}, **fields)

        id = ask("use", "POST", "/v1/chat/completions", json=question("Whose?")).json()["id"]
        yield ask, id


def test_operators_read_everyones_answers_and_users_their_own(locked: tuple[Callable[..., Any], str]) -> None:
    ask, id = locked
    path = f"/v1/chat/completions/{id}"
    told = {role: ask(role, "GET", path).status_code for role in KEYS}
    assert told == {"use": 200, "annotate": 403, "operate": 200, "other": 404}
    assert ask("use", "GET", path).json() == ask("operate", "GET", path).json()
    dialog = StoredMessages.model_validate(ask("operate", "GET", f"{path}/messages").json())
    assert [(message.role, message.content) for message in dialog.data] == [("user", "Whose?")]
    assert (dialog.first_id, dialog.last_id, dialog.has_more) == (f"{id}-0", f"{id}-0", False)
    assert ask("other", "GET", f"{path}/messages").status_code == 404
    assert {role: ask(role, "DELETE", path).status_code for role in ("annotate", "other", "operate", "use")} == {
        "annotate": 403,
        "other": 404,
        "operate": 200,
        "use": 404,
    }


def test_the_store_is_the_operators_alone(locked: tuple[Callable[..., Any], str]) -> None:
    ask, _ = locked
    for method, path in ROUTES:
        if "chatcmpl" not in path:
            body = {"user": "nobody"} if method == "POST" else None
            told = {role: ask(role, method, path, json=body).status_code for role in KEYS}
            assert told == {"use": 403, "annotate": 403, "operate": 200, "other": 403}, path


def test_a_forgotten_user_is_in_no_byte_that_is_left(server: ScriptedServer, tmp_path: Path) -> None:
    """Acceptance 16: over HTTP, while the server goes on: in no file, no table, no list and no new export."""
    secret, name = "The password of my diary is xylophone-7731.", "anna-9d3f"
    server.chat(secret, user=name)
    server.chat("Another question.", user="bert")
    with server.http as http:
        assert secret in http.get("/v1/store/selections").text
        assert http.post("/v1/store/forget", json={"user": name}).json()["selections"] == 1
        digest = key_of(location(str(tmp_path / "winnow.db")), None).of_user(name)
        for file in tmp_path.iterdir():
            content = file.read_bytes()
            assert b"xylophone" not in content, file
            assert name.encode() not in content, file
        assert "xylophone" not in http.get("/v1/store/selections").text
        assert all("xylophone" not in http.get(f"/v1/store/export/{format}").text for format in FORMATS)
        assert http.get("/v1/store").json()["selections"] == 1
    with sqlite3.connect(tmp_path / "winnow.db") as connection:
        kept = [line for line in connection.iterdump() if digest in line]
    connection.close()
    assert [line.split('"')[1] for line in kept] == ["tombstone"]


def test_answers_go_on_while_a_file_is_corrupt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "winnow.db"
    with recording(tokenizer, tmp_path) as server, server.http as http:
        server.chat()
        assert http.get("/v1/store").status_code == 200
        path.write_bytes(b"no database at all " * 1000)
        assert [server.chat().status_code for _ in range(3)] == [200] * 3
        assert wait_until(lambda: http.get("/version").json()["recording"]["fault"] == "corrupt", SECONDS)
        assert http.get("/v1/store").status_code == 503
