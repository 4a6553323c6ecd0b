"""Recorded completions over HTTP: which answers are recorded, whose they are, and that a broken store changes none."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import ScriptedServer, question, scripted, wait_until
from winnow.clients.schema import ChatCompletion
from winnow.models.errors import CandidateFailed
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys, Key
from winnow.server.store.location import location
from winnow.server.store.opening import key_of, open_existing, recorder
from winnow.server.store.rows import Stored

SECONDS = 20


@contextlib.contextmanager
def recording(
    tokenizer: Tokenizer,
    folder: Path,
    *keys: str,
    policy: ScriptedPolicy | None = None,
    safety: ScriptedRewardModel | None = None,
    found: ApiKeys | None = None,
    **settings: Any,
) -> Iterator[ScriptedServer]:
    """A server that records into `winnow.db` in `folder`; its keys may `use` it, or are those `found` in a file."""
    values = {"store": str(folder / "winnow.db"), "record": "all", "candidates": 4, **settings}
    service = scripted(tokenizer, policy, safety, **values)
    writer = recorder(service.settings, service.template, service.combiner)
    assert writer
    known = found or ApiKeys(Key(hashlib.sha256(key.encode()).digest()) for key in keys)
    with (
        writer.running(),
        ScriptedServer.start(dataclasses.replace(service, recorder=writer), known) as server,
    ):
        yield server


def stored(folder: Path) -> list[Stored]:
    store = open_existing(location(str(folder / "winnow.db")))
    found = list(store.records([origin.number for origin in store.origins()], 0))
    store.close()
    return found


def get(server: ScriptedServer, id: str, key: str | None = None) -> httpx.Response:
    with server.http as http:
        return http.get(f"/v1/chat/completions/{id}", headers={"Authorization": f"Bearer {key}"} if key else {})


def delete(server: ScriptedServer, id: str) -> httpx.Response:
    with server.http as http:
        return http.delete(f"/v1/chat/completions/{id}")


def test_a_recorded_completion_is_returned_as_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path) as server:
        answered = server.chat(n=2, best_of_n={"return_candidates": True})
        again = get(server, answered.json()["id"])
        assert again.status_code == 200
        told, kept = ChatCompletion.model_validate(answered.json()), ChatCompletion.model_validate(again.json())
        timings = told.best_of_n.timings_ms
        assert kept == told.model_copy(
            update={"best_of_n": told.best_of_n.model_copy(update={"timings_ms": kept.best_of_n.timings_ms})}
        )
        assert kept.best_of_n.timings_ms.total == pytest.approx(timings.total, abs=0.1)


def test_a_stream_is_recorded_once_it_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path) as server:
        events = server.chat(stream=True).text.split("\n\n")
        first = json.loads(events[0].removeprefix("data: "))
        text = "".join(
            choice["delta"].get("content") or ""
            for event in events
            if event.startswith("data: {")
            for choice in json.loads(event.removeprefix("data: "))["choices"]
        )
        kept = get(server, first["id"]).json()
    assert (kept["choices"][0]["message"]["content"], kept["created"]) == (text, first["created"])


@pytest.mark.parametrize(
    ("record", "store", "kept"),
    [("off", True, 0), ("opt_in", None, 0), ("opt_in", True, 1), ("all", False, 0), ("all", None, 1)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_recorded_is_as_setting_and_request_say(
    tokenizer: Tokenizer, tmp_path: Path, record: str, store: bool | None, kept: int, stream: bool
) -> None:
    with recording(tokenizer, tmp_path, record=record) as server:
        assert server.chat(store=store, stream=stream).status_code == 200
    assert len(stored(tmp_path)) == kept


def test_no_failed_refused_or_raw_answer_is_recorded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def fails(index: int) -> list[int]:
        raise CandidateFailed("scripted")

    with recording(tokenizer, tmp_path, policy=ScriptedPolicy(fails)) as server:
        assert server.chat().status_code == 500
        assert "error" in server.chat(stream=True).text
        assert server.chat(temperature=3).status_code == 400
    with recording(tokenizer, tmp_path) as server, server.http as http:
        raw = {"model": "winnow-demo", "prompt": "Once", "store": True}
        assert http.post("/v1/completions", json=raw).status_code == 200
    assert stored(tmp_path) == []


def test_whom_an_answer_was_given_to_is_a_digest(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path) as server:
        server.chat(user="anna", safety_identifier="a-1")
    names = key_of(location(str(tmp_path / "winnow.db")), None)
    assert [one.people for one in stored(tmp_path)] == [{names.of_user("anna"), names.of_user("a-1")}]


def test_another_keys_completion_is_not_there(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path, "key-of-anna", "key-of-bert") as server:
        with server.http as http:
            headers = {"Authorization": "Bearer key-of-anna"}
            id = http.post("/v1/chat/completions", json=question(), headers=headers).json()["id"]
        assert get(server, id, "key-of-anna").status_code == 200
        theirs, absent = get(server, id, "key-of-bert"), get(server, f"chatcmpl-{0:032x}", "key-of-bert")
        assert (theirs.status_code, theirs.json()) == (404, absent.json())
        assert get(server, id).status_code == 401


@pytest.mark.parametrize("id", ["x", "%00", "chatcmpl-" + "0" * 32, "'%20OR%20''='", "a" * 5000])
def test_an_unknown_id_is_a_404(tokenizer: Tokenizer, tmp_path: Path, id: str) -> None:
    with recording(tokenizer, tmp_path) as server:
        for answer in (get(server, id), delete(server, id)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_stored")


def test_without_a_store_the_answer_says_how_to_have_one(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as server:
        answer = get(server, "chatcmpl-" + "0" * 32)
        assert (answer.status_code, "--store" in answer.json()["error"]["message"]) == (404, True)
        with server.http as http:
            assert http.get("/version").json()["recording"] is None


def test_a_deleted_completion_is_gone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path) as server:
        id, other = server.chat().json()["id"], server.chat().json()["id"]
        assert delete(server, id).json() == {"id": id, "object": "chat.completion.deleted", "deleted": True}
        assert get(server, id).status_code == delete(server, id).status_code == 404
        assert get(server, other).status_code == 200


def test_a_refusal_is_returned_again_and_hides_the_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    unsafe = ScriptedRewardModel(lambda ids: -5.0)
    with recording(tokenizer, tmp_path, safety=unsafe, when_all_unsafe="refuse") as server:
        told = server.chat().json()
        kept = get(server, told["id"]).json()
    assert kept["choices"] == told["choices"]
    assert kept["choices"][0]["finish_reason"] == "content_filter"
    assert not any("text" in item for item in kept["best_of_n"]["scored"])
    assert all(item.candidate.text for item in stored(tmp_path)[0].record.selection.scored)


def test_a_locked_store_fails_no_answer_and_is_shown(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.server.store.sqlite.BUSY_SECONDS", 0.05)
    with recording(tokenizer, tmp_path) as server, server.http as http:
        id = server.chat().json()["id"]
        assert get(server, id).status_code == 200
        other = sqlite3.connect(tmp_path / "winnow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert [server.chat(stream=stream).status_code for stream in (False, True, False)] == [200] * 3
        assert http.get("/health").status_code == http.get("/ready").status_code == 200
        unavailable = get(server, id)
        assert (unavailable.status_code, unavailable.json()["error"]["code"]) == (503, "store_unavailable")
        assert str(tmp_path) not in unavailable.text
        recorded = http.get("/version").json()["recording"]
        assert (recorded["fault"], recorded["dropped"], recorded["written"]) == ("locked", {"locked": 3}, 1)
        lines = http.get("/metrics").text.splitlines()
        assert {'winnow_store_dropped_total{reason="locked"} 3.0', "winnow_store_up 0.0"} <= set(lines)
        other.close()
        server.chat()
        assert wait_until(lambda: http.get("/version").json()["recording"]["fault"] is None, SECONDS)
        assert "winnow_store_written_total 2.0" in http.get("/metrics").text


def test_a_client_that_leaves_is_not_recorded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    policy = ScriptedPolicy()
    with recording(tokenizer, tmp_path, policy=policy) as server, server.http as http:
        import asyncio

        hold = asyncio.Event()
        policy.hold = hold
        for stream in (False, True):
            with (
                contextlib.suppress(httpx.TimeoutException),
                http.stream("POST", "/v1/chat/completions", json=question(stream=stream), timeout=0.3) as answer,
            ):
                answer.read()
        assert wait_until(lambda: not policy.running, SECONDS)
        server.call(hold.set)
        assert server.chat().status_code == 200
    assert len(stored(tmp_path)) == 1
