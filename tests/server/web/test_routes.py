"""The page over HTTP: headers, types, HEAD, caching, and who gets it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.settings import Settings
from winnow.server.web.files import HEADERS, page_files

KEY = "wk-3f9a5c0d77"
FILES = page_files()
FOLLOWED_LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer), ApiKeys.of(Settings(api_keys=(KEY,)))) as running:
        yield running


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_sent_with_the_pages_headers(server: ScriptedServer, path: str) -> None:
    with server.http as http:
        answer, head = http.get(path), http.head(path)
        assert answer.status_code == head.status_code == 200
        assert answer.content == FILES[path].body
        assert head.content == b""
        for headers in (answer.headers, head.headers):
            assert headers["content-type"] == FILES[path].media_type
            assert headers["content-length"] == str(len(FILES[path].body))
            assert HEADERS.items() <= {name: headers.get(name.lower()) for name in HEADERS}.items()
            assert "x-request-id" in headers
            assert "set-cookie" not in headers


def test_a_file_that_is_known_is_not_sent_again(server: ScriptedServer) -> None:
    with server.http as http:
        tag = http.get("/").headers["etag"]
        for method in ("GET", "HEAD"):
            again = http.request(method, "/", headers={"if-none-match": tag})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert http.get("/", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page/other.js", "/page/..%2f__init__.py", "/page/%2e%2e/files.py", "/page/index.html"]
)
def test_nothing_else_is_served(server: ScriptedServer, locked: ScriptedServer, path: str) -> None:
    with server.http as http, locked.http as http_locked:
        assert http.get(path).status_code == 404
        assert http_locked.get(path).status_code == 401


def test_other_methods_are_refused(server: ScriptedServer) -> None:
    with server.http as http:
        for path in ("/", "/page/main.js"):
            answer = http.post(path, json={})
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_page_loads_without_a_key_and_the_api_does_not(locked: ScriptedServer) -> None:
    """Regression of others: with a key, llama.cpp's page stayed blank."""
    with locked.http as http:
        for path in FILES:
            assert http.get(path).status_code == 200
        for path in ("/version", "/v1/models", "/metrics", "/openapi.json"):
            assert http.get(path).status_code == 401


def test_the_page_is_no_part_of_the_api(server: ScriptedServer) -> None:
    with server.http as http:
        assert not {"/", "/page/{name}"} & set(http.get("/openapi.json").json()["paths"])


def fetched(server: ScriptedServer, path: str, **headers: str) -> httpx.Response:
    with server.http as http:
        return http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_foreign_host_gets_no_page(server: ScriptedServer) -> None:
    for path in FILES:
        assert fetched(server, path, host="evil.test").status_code == 421
    assert fetched(server, "/", host="localhost:8000").status_code == 200


def test_trusted_hosts_hold_for_the_page_of_a_locked_server(tokenizer: Tokenizer) -> None:
    settings = {"api_keys": (KEY,), "trusted_hosts": ("winnow.example.org",)}
    with ScriptedServer.start(scripted(tokenizer, **settings), ApiKeys.of(Settings(api_keys=(KEY,)))) as named:
        assert fetched(named, "/", host="winnow.example.org").status_code == 200
        assert fetched(named, "/", host="localhost").status_code == 421


def test_a_link_leads_to_the_page_and_to_nothing_else(server: ScriptedServer) -> None:
    """A browser says cross-site when one follows a link from another site: that must not end at an error."""
    link = {name.replace("-", "_"): value for name, value in FOLLOWED_LINK.items()}
    assert fetched(server, "/", **link).status_code == 200
    for path in ("/v1/models", "/version"):
        assert fetched(server, path, **link).status_code == 403
    for changed in ({"sec_fetch_dest": "iframe"}, {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"}):
        for path in ("/", "/page/main.js"):
            assert fetched(server, path, **{**link, **changed}).status_code == 403
    with server.http as http:
        assert http.post("/v1/chat/completions", json={}, headers=FOLLOWED_LINK).status_code == 403


def test_the_page_can_be_switched_off(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer, playground=False)) as bare:
        for path in FILES:
            assert fetched(bare, path).status_code == 404
        link = {name.replace("-", "_"): value for name, value in FOLLOWED_LINK.items()}
        assert fetched(bare, "/", **link).status_code == 403
    keys = ApiKeys.of(Settings(api_keys=(KEY,)))
    with ScriptedServer.start(scripted(tokenizer, playground=False), keys) as bare:
        assert fetched(bare, "/").status_code == 401
