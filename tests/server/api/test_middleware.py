"""Access, request ids and the access log, over real HTTP on scripted engines."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import ScriptedRewardModel
from tests.live import ScriptedServer, scripted, wait_until
from winnow.clients.schema import ErrorBody
from winnow.models.errors import SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.settings import Settings

KEY, OTHER = "wk-3f9a5c0d77", "wk-another-key"
ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/rewards"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/winnow-demo"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v1/chat/completions"),
    ("HEAD", "/v1/models"),
]


@pytest.fixture(scope="module")
def locked(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    keys = ApiKeys.of(Settings(api_keys=(KEY, f"sha256:{hashlib.sha256(OTHER.encode()).hexdigest()}")))
    with ScriptedServer.start(scripted(tokenizer, trusted_hosts=("127.0.0.1", "*.example.org")), keys) as server:
        yield server


def raw(server: ScriptedServer, head: str) -> tuple[int, str]:
    """Send a raw head; return the status and the whole answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split()[1]), answer.decode()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_but_the_probes_needs_a_key(locked: ScriptedServer, method: str, path: str) -> None:
    shown = [
        {},
        {"authorization": "Bearer wrong-key-12"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": "Bearer schlüssel".encode("latin-1")},
        {"x-api-key": KEY},
    ]
    with locked.http as http:
        for headers in shown:
            response = http.request(method, path, headers=headers)
            assert response.status_code == 401, headers
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["x-should-retry"] == "false"
            assert KEY not in response.text
            if method != "HEAD":
                assert ErrorBody.model_validate(response.json()).error.code == "invalid_api_key"
        twice = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")]
        assert http.request(method, path, headers=twice).status_code == 401
        for key in (KEY, OTHER):
            assert http.request(method, path, headers={"authorization": f"bearer {key}"}).status_code != 401


def test_the_probes_are_open(locked: ScriptedServer) -> None:
    with locked.http as http:
        assert http.get("/health", headers={"host": "evil.test"}).json() == {"status": "ok"}
        assert http.get("/ready").json() == {"status": "ready"}


@pytest.mark.parametrize(
    "target",
    [
        "//v1/models",
        "/v1/../health",
        "/v1/%2e%2e/health",
        "/health/",
        "/health/../v1/models",
        "/health%2f..%2fv1/models",
        "/health;/v1/models",
        "http://127.0.0.1/v1/models",
        "http://127.0.0.1//health",
        "HTTPS://127.0.0.1:8000/v1/models?x=http://a/health",
        "http:///health/",
        "ftp://127.0.0.1/health",
        "/v1/models?path=/health",
        "/HEALTH",
        "*",
    ],
)
def test_no_spelling_of_a_path_avoids_the_key(locked: ScriptedServer, target: str) -> None:
    status, answer = raw(locked, f"GET {target} HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n")
    assert status == 401, answer


@pytest.mark.parametrize("host", ["evil.test", "health", "127.0.0.1.evil.test", "localhost", "example.org"])
def test_a_hostile_host_gets_no_access(locked: ScriptedServer, host: str) -> None:
    with locked.http as http:
        assert http.get("/v1/models", headers={"host": host}).status_code == 401
        refused = http.get("/v1/models", headers={"host": host, "authorization": f"Bearer {KEY}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (421, "untrusted_host")
        for trusted in ("127.0.0.1:99", "a.example.org", "127.0.0.1"):
            answer = http.get("/v1/models", headers={"host": trusted, "authorization": f"Bearer {KEY}"})
            assert answer.status_code == 200


def test_a_huge_key_is_refused(locked: ScriptedServer) -> None:
    with locked.http as http:
        response = http.get("/v1/models", headers={"authorization": "Bearer " + "k" * 1_000_000})
        assert response.status_code == 401
        assert http.get("/health").status_code == 200


@pytest.fixture(scope="module")
def open_server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as server:
        yield server


def test_routing_errors_are_json(open_server: ScriptedServer) -> None:
    with open_server.http as http:
        for _, path in ROUTES:
            for wrong in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                if (wrong, path) in ROUTES and path != "/nowhere" and wrong != "OPTIONS":
                    continue
                response = http.request(wrong, path)
                assert response.status_code in (404, 405), (wrong, path)
                ErrorBody.model_validate(response.json())
                assert ("allow" in response.headers) == (response.status_code == 405)
        assert "access-control-allow-origin" not in http.get("/health", headers={"origin": "http://evil.test"}).headers


def test_head_is_get_without_the_body(open_server: ScriptedServer) -> None:
    with open_server.http as http:
        for _, path in ROUTES:
            get, head = http.get(path), http.head(path)
            assert head.status_code == get.status_code
            assert head.content == b""
            for name in ("content-type", "allow", "x-should-retry"):
                assert head.headers.get(name) == get.headers.get(name), path
            if path != "/metrics":  # which counts the requests themselves
                assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))
        assert http.head("/metrics").headers["content-length"].isdecimal()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/version", "/v1/models", "/v1/models/winnow-demo"])
def test_absolute_targets_are_served(open_server: ScriptedServer, method: str, path: str) -> None:
    for host in ("http://localhost", "HTTP://127.0.0.1:8000", "https://[::1]"):
        status, answer = raw(open_server, f"{method} {host}{path} HTTP/1.1\nHost: localhost\nConnection: close\n\n")
        assert status == 200, answer
    status, answer = raw(
        open_server, f"{method} http://localhost?{path} HTTP/1.1\nHost: localhost\nConnection: close\n\n"
    )
    assert status == 200, answer
    assert "content-type: text/html" in answer, "its path is /, the playground's"


def test_an_error_that_no_route_answers_is_json_with_its_id(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("winnow.server.api.metrics.Metrics.render", fail)
    with ScriptedServer.start(scripted(tokenizer)) as server, server.http as http:
        answer = http.get("/metrics", headers={"x-request-id": "abc"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] == "abc"


def test_a_draining_server_lets_connections_go(tokenizer: Tokenizer) -> None:
    service = scripted(tokenizer)
    with ScriptedServer.start(service) as server, server.http as http:
        assert "connection" not in http.get("/v1/models").headers
        service.lifecycle.is_draining = True
        for path in ("/health", "/ready", "/v1/models"):
            assert http.get(path).headers["connection"] == "close"


def test_a_plain_request_id_is_kept_and_any_other_replaced(open_server: ScriptedServer) -> None:
    with open_server.http as http:
        for given in ("abc", "A-1_b.c:9", "x" * 128):
            assert http.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given
        for hostile in ("", "x" * 129, "a b", "a\x1b[31m", "é".encode("latin-1"), "a%0d%0ab", "<script>"):
            made = http.get("/health", headers={"x-request-id": hostile}).headers["x-request-id"]
            assert made.startswith("req_")
        two = [http.get("/nowhere").headers for _ in range(2)]
        assert two[0]["x-request-id"] != two[1]["x-request-id"]
        assert int(two[0]["openai-processing-ms"]) >= 0


def test_the_log_has_one_line_per_request_and_no_user_content(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    keys, ids = ApiKeys.of(Settings(api_keys=(KEY,))), ["one", "two", "three", "four"]
    caplog.set_level(logging.INFO, "winnow")

    def logged() -> list[Any]:
        """The requests of this test: another server's last line may come late."""
        return [item for item in caplog.records if item.name == "winnow.access" and vars(item)["request_id"] in ids]

    with ScriptedServer.start(scripted(tokenizer), keys) as server, server.http as http:
        http.headers["authorization"] = f"Bearer {KEY}"
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "sesame\nforged line"}]}
        http.post("/v1/chat/completions", json=body, headers={"x-request-id": "one"})
        http.post("/v1/chat/completions", json={**body, "stream": True}, headers={"x-request-id": "two"})
        http.post("/v1/chat/completions", json={**body, "sesame": 1}, headers={"x-request-id": "three"})
        http.get("/sesame/../sesame", headers={"x-request-id": "four"})
        wait_until(lambda: len(logged()) >= 4, 5)
    lines = logged()
    assert [line.request_id for line in lines] == ids
    assert [line.status for line in lines] == [200, 200, 400, 404]
    assert [line.route for line in lines] == ["/v1/chat/completions"] * 3 + ["unmatched"]
    assert all(line.candidates == 16 and line.total_ms >= line.queue_ms for line in lines[:2])
    assert lines[2].error == "unsupported"
    for record in caplog.records:
        told = repr(vars(record))
        assert "sesame" not in told
        assert KEY not in told


def test_a_refused_body_has_one_id_in_the_answer_and_both_log_lines(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "winnow")
    with ScriptedServer.start(scripted(tokenizer, body_seconds=0.1)) as server:
        head = "POST /tokenize HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 9\n\n"
        status, answer = raw(server, head)
        wait_until(lambda: len(caplog.records) >= 2, 5)
    shown = {record.request_id for record in caplog.records if hasattr(record, "request_id")}
    assert status == 408
    assert [f"x-request-id: {name}\r\n" in answer for name in shown] == [True]
    assert len(caplog.records) == 2


def line_of(response: httpx.Response, caplog: pytest.LogCaptureFixture) -> Any:
    """The access log's only line of a request: another server's last line may come late."""

    def lines() -> list[Any]:
        name = response.headers["x-request-id"]
        return [item for item in caplog.records if item.name == "winnow.access" and vars(item)["request_id"] == name]

    wait_until(lambda: bool(lines()), 5)
    (line,) = lines()
    return line


def test_content_is_logged_only_with_log_content(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "winnow")
    with ScriptedServer.start(scripted(tokenizer, log_content=True)) as server:
        line = line_of(server.chat("open sesame"), caplog)
    assert "open sesame" in line.prompt
    assert line.answer.startswith("answer ")


def test_clients_cannot_create_label_values(open_server: ScriptedServer) -> None:
    with open_server.http as http:
        http.get("/nowhere/0")
        http.get("/v1/models/0")
        series = len(http.get("/metrics").text.splitlines())
        for number in range(1, 60):
            http.get(f"/nowhere/{number}")
            http.get(f"/v1/models/{number}")
            open_server.chat(model=f"model-{number}")
        assert len(http.get("/metrics").text.splitlines()) <= series + 4  # the chat route's 404 is new, once


def test_keys_come_from_a_file_and_errors_never_show_one(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# staff\r\n{KEY}\r\n\r\n{OTHER} # the other\r\n", encoding="utf-8-sig", newline="")
    keys = ApiKeys.of(Settings(api_keys_file=file))
    assert len(keys) == 2
    assert keys.caller([(b"authorization", f"Bearer {OTHER}".encode())]) is not None
    for content in ("", "# nothing\n", "short\n", "with space in it\n", "ünïcödé-key\n"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError) as caught:
            ApiKeys.of(Settings(api_keys_file=file))
        assert not content.strip("# \n") or content.strip() not in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        ApiKeys.of(Settings(api_keys_file=tmp_path / "none"))


def test_heads_are_bounded_on_every_route(open_server: ScriptedServer) -> None:
    with open_server.http as http:
        for path in ("/v1/models", "/health"):
            for headers, code in (
                ({"x-large": "x" * 66_000}, "headers_too_large"),
                ({f"x-{number}": "x" for number in range(1000)}, "too_many_headers"),
            ):
                response = http.get(path, headers=headers)
                assert (response.status_code, response.json()["error"]["code"]) == (431, code)
        assert http.get("/v1/models", headers={f"x-{number}": "x" for number in range(80)}).status_code == 200


def test_a_refusal_is_logged_as_the_answer(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "winnow")
    unsafe = ScriptedRewardModel(logit=lambda ids: -3.0)
    service = scripted(tokenizer, safety=unsafe, log_content=True, when_all_unsafe="refuse", refusal="No.")
    with ScriptedServer.start(service) as server:
        line = line_of(server.chat("open sesame"), caplog)
    assert line.answer == "No."


def test_a_client_does_not_choose_its_address(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "winnow")
    with ScriptedServer.start(scripted(tokenizer)) as server, server.http as http:
        forged = {"x-forwarded-for": "1.2.3.4 status=200", "forwarded": "for=1.2.3.4"}
        line = line_of(http.get("/v1/models", headers=forged), caplog)
    assert line.client == "127.0.0.1"


def test_a_hash_inside_a_key_is_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("longprefix#restofthekey # a comment\n", encoding="utf-8")
    keys = ApiKeys.of(Settings(api_keys_file=file))
    assert keys.caller([(b"authorization", b"Bearer longprefix#restofthekey")]) is not None
    assert keys.caller([(b"authorization", b"Bearer longprefix")]) is None
