"""Requests without a route: 404 that says which path was meant or what is served, and 405 with the methods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.unknown_routes import ELSEWHERE, explained

ROUTES = {
    "/v1/chat/completions": ["POST"],
    "/v1/completions": ["POST"],
    "/v1/models": ["GET"],
    "/v1/models/{model}": ["GET"],
    "/tokenize": ["POST"],
    "/health": ["GET"],
}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/models", "/v1/models"),
        ("/models/winnow-demo", "/v1/models/{model}"),
        ("/rewards", "/v1/rewards"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/models/winnow-demo", "/v1/models/{model}"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/winnow-demo/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1/chat//completions", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/models/", "/v1/models"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/health", "/health"),
        ("/health/", "/health"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat", "/v1/chat/completions"),
        ("/api/chat", "/v1/chat/completions"),
        ("/api/tags", "/v1/models"),
        ("/healthz", "/health"),
        ("/docs", "/openapi.json"),
        ("/v1/openapi.json", "/openapi.json"),
    ],
)
def test_a_404_says_which_path_was_meant(server: ScriptedServer, path: str, meant: str) -> None:
    with server.http as http:
        for method in ("GET", "POST"):
            answer = http.request(method, f"{server.url}{path}")
            if answer.status_code != 405:
                assert answer.status_code == 404
                assert answer.json()["error"]["message"].endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("prefix", ["/v1/", "/", "/api/v1/"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_apis_are_told_what_is_served(prefix: str, name: str) -> None:
    error = explained(HTTPException(404), f"{prefix}{name}/sesame", ROUTES)
    assert error.detail.startswith(ELSEWHERE[name])
    assert all(path in error.detail for path in ROUTES)


@given(st.lists(st.sampled_from(["sesame", "", "v1", "é", "..", "models "]), max_size=5))
def test_a_message_never_repeats_the_path(segments: list[str]) -> None:
    error = explained(HTTPException(404), "/" + "/".join(segments), ROUTES)
    assert error.status_code == 404
    assert "sesame" not in error.detail
    assert "é" not in error.detail


def test_a_405_names_the_methods(server: ScriptedServer) -> None:
    with server.http as http:
        for path, wrong, allowed in (
            ("/v1/chat/completions", "GET", "POST"),
            ("/v1/chat/completions", "HEAD", "POST"),
            ("/v1/models", "POST", "GET, HEAD"),
            ("/health", "DELETE", "GET, HEAD"),
            ("/openapi.json", "POST", "GET, HEAD"),
        ):
            answer = http.request(wrong, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            if wrong != "HEAD":
                assert answer.json()["error"]["message"] == f"this path takes {allowed}"


def test_a_404_of_a_route_is_its_own(server: ScriptedServer) -> None:
    with server.http as http:
        assert http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
