"""Web pages of other origins: refused, or named and answered with CORS headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live import ScriptedServer, question, scripted
from winnow.models.errors import ForeignOrigin, SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.origins import EXPOSED, Origins
from winnow.server.settings import Settings, load

KEY = "wk-3f9a5c0d77"
PAGE = "https://app.example.org"
CHAT = "/v1/chat/completions"
ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}


def allows(*named: str, host: str = "localhost:8000", **headers: str) -> bool:
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    try:
        Origins(Settings(cors_origins=named).cors_origins).check({"headers": [(b"host", host.encode()), *given]})
    except ForeignOrigin:
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost:8000"}, True),
        ({"origin": "http://LOCALHOST:8000"}, True),
        ({"origin": "http://localhost", "host": "localhost"}, True),
        ({"origin": "https://localhost", "host": "localhost:443"}, True),
        ({"origin": "http://[::1]:8000", "host": "[::1]:8000"}, True),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "anything"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://localhost:8000"}, False),
        ({"sec_fetch_site": "same-origin", "origin": "http://evil.test"}, False),
        ({"origin": "http://evil.test"}, False),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "http://127.0.0.1:8000"}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "file://"}, False),
        ({"origin": "app://localhost:8000"}, False),
        ({"origin": "http://localhost:8000.evil.test"}, False),
        ({"origin": "http://localhost:8000@evil.test"}, False),
    ],
)
def test_only_the_servers_own_pages_are_allowed_by_default(headers: dict[str, str], is_allowed: bool) -> None:
    assert allows(**headers) == is_allowed


def test_named_origins_are_allowed_whatever_site_they_are_of() -> None:
    named = (
        PAGE,
        "https://*.apps.example.org",
        "http://localhost:3000",
        "app://obsidian.md",
        "HTTPS://A.example.org:443/",
    )
    pages = (PAGE, "https://x.apps.example.org", "http://localhost:3000", "app://obsidian.md", "https://a.example.org")
    for page in pages:
        assert allows(*named, origin=page)
        assert allows(*named, origin=page, sec_fetch_site="cross-site")
    for page in (
        "http://app.example.org",
        "https://app.example.org:444",
        "https://apps.example.org",
        "https://x.apps.example.org.evil.test",
        "http://localhost:3001",
        "https://*.apps.example.org",
        "null",
    ):
        assert not allows(*named, origin=page)
    assert not allows(*named, sec_fetch_site="cross-site")
    assert allows("*", origin="null", sec_fetch_site="cross-site")


TEXT = st.text(st.characters(max_codepoint=255), max_size=30)


@given(TEXT | TEXT.map("https://{}".format), TEXT)
def test_no_header_of_a_browser_breaks_the_check(page: str, host: str) -> None:
    headers = [(b"origin", page.encode("latin-1")), (b"host", host.encode("latin-1"))]
    asking = {"method": "OPTIONS", "headers": [*headers, (b"access-control-request-method", b"POST")]}
    origins = Origins(Settings(cors_origins=("https://*.example.org", PAGE)).cors_origins)
    assert not allows(PAGE, "https://*.example.org", host="localhost", origin=page)
    assert not origins.is_preflight(asking)
    assert origins.headers(asking) == [(b"vary", b"Origin")]


@pytest.mark.parametrize("wrong", ["app.example.org", "https://a.org/page", "https://", "null", "https://a*b.org"])
def test_a_setting_that_is_no_origin_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        load(cors_origins=[wrong])


@pytest.fixture(scope="module")
def closed(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as server:
        yield server


@pytest.fixture(scope="module", params=[True, False], ids=["keys", "keyless"])
def opened(tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
    keys = ApiKeys.of(Settings(api_keys=(KEY,))) if request.param else None
    with ScriptedServer.start(scripted(tokenizer, cors_origins=(PAGE,)), keys) as server:
        yield server


def cors(headers: Iterable[str]) -> list[str]:
    return [name for name in headers if name.startswith("access-control-") or name == "vary"]


@pytest.mark.parametrize("path", ["/v1/models", CHAT, "/health", "/metrics", "/nowhere"])
def test_a_foreign_page_is_refused_without_any_cors_header(closed: ScriptedServer, path: str) -> None:
    with closed.http as http:
        for method in ("GET", "POST", "OPTIONS"):
            for shown in ({"origin": PAGE}, {"sec-fetch-site": "cross-site"}, {"origin": "null", **ASKING}):
                answer = http.request(method, path, headers=shown)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
                assert cors(answer.headers) == []
        assert cors(http.get(path).headers) == []


def test_keys_do_not_open_the_server_to_foreign_pages(opened: ScriptedServer) -> None:
    with opened.http as http:
        shown = {"origin": "https://evil.test", "authorization": f"Bearer {KEY}"}
        answer = http.post(CHAT, json=question(), headers=shown)
        assert answer.status_code == 403
        assert cors(answer.headers) == ["vary"]
        assert http.options(CHAT, headers={**ASKING, "origin": "https://evil.test"}).status_code in (401, 403)


def test_a_named_page_asks_and_is_answered(opened: ScriptedServer) -> None:
    page = {"origin": PAGE, "sec-fetch-site": "cross-site"}
    with opened.http as http:
        for path in (CHAT, "/v1/models", "/nowhere"):
            preflight = http.options(path, headers={**page, **ASKING, "access-control-request-private-network": "true"})
            assert (preflight.status_code, preflight.content) == (204, b"")
            assert preflight.headers["access-control-allow-origin"] == PAGE
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
            assert preflight.headers["access-control-allow-private-network"] == "true"
        for body in (question(), question(stream=True), question(temperature=9)):
            answer = http.post(CHAT, json=body, headers={**page, "authorization": f"Bearer {KEY}"})
            assert answer.status_code == (400 if body.get("temperature") else 200)
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["vary"] == "Origin"
            assert set(answer.headers["access-control-expose-headers"].split(", ")) == set(EXPOSED)
            assert "access-control-allow-credentials" not in answer.headers
        refused = http.get("/v1/models", headers={**page, "authorization": "Bearer wrong-key-12"})
        assert refused.headers["access-control-allow-origin"] == PAGE
        assert cors(http.get("/health").headers) == ["vary"]
        assert http.options(CHAT, headers={**page, "authorization": f"Bearer {KEY}"}).status_code == 405


def test_every_page_may_be_let_in(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer, cors_origins="*")) as server, server.http as http:
        answer = http.get("/v1/models", headers={"origin": "null", "sec-fetch-site": "cross-site"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert cors(http.get("/v1/models").headers) == []
        assert http.options(CHAT, headers={"origin": PAGE, **ASKING}).headers["access-control-allow-origin"] == "*"
        assert http.get("/v1/models", headers={"origin": PAGE, "host": "evil.test"}).status_code == 421
