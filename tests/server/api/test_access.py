"""Roles: every route has some, and a key opens only those that share one with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import ScriptedServer, question, scripted
from winnow.models.errors import SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.access import NEEDED
from winnow.server.api.auth import ROLES, ApiKeys
from winnow.server.settings import Settings

USER, ANNOTATOR, OPERATOR, EVERY, BARE = (f"wk-of-a-{name}-5f0c" for name in ("u", "a", "o", "e", "b"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    file = tmp_path_factory.mktemp("keys") / "keys"
    lines = (
        f"{USER} use\n{ANNOTATOR} annotate anna\n{OPERATOR} operate # nobody else\n{EVERY} use,annotate,operate eve\n"
    )
    file.write_text(lines + BARE)
    return ApiKeys.of(Settings(api_keys_file=file))


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer, keys: ApiKeys) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer), keys) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_opens_exactly_the_routes_of_its_roles(server: ScriptedServer) -> None:
    with server.http as http:
        document = http.get("/openapi.json", headers=bearer(EVERY)).json()
        for key in (USER, ANNOTATOR, OPERATOR, EVERY, BARE):
            mine = set(http.get("/v1/caller", headers=bearer(key)).json()["roles"])
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    if path in ("/health", "/ready"):
                        continue
                    answer = http.request(method, path, headers=bearer(key), json={})
                    error = answer.json().get("error", {}) if "json" in answer.headers["content-type"] else {}
                    is_refused = (answer.status_code, error.get("code")) == (403, "role_missing")
                    assert is_refused == (not mine & set(operation[NEEDED])), (key, method, path)


def test_the_document_is_not_for_annotators_alone(server: ScriptedServer) -> None:
    """Regression: its examples name the served model."""
    with server.http as http:
        for method in ("GET", "HEAD"):
            statuses = [
                http.request(method, "/openapi.json", headers=bearer(key)).status_code
                for key in (USER, ANNOTATOR, OPERATOR, EVERY, BARE)
            ]
            assert statuses == [200, 403, 200, 200, 200]
        assert http.post("/openapi.json", headers=bearer(ANNOTATOR)).status_code == 405


def test_callers_are_told_who_they_are(server: ScriptedServer) -> None:
    with server.http as http:
        anna = http.get("/v1/caller", headers=bearer(ANNOTATOR)).json()
        assert anna == {"name": "anna", "roles": ["annotate"]}
        bare = http.get("/v1/caller", headers=bearer(BARE)).json()
        assert bare["roles"] == ["use"]
        assert len(bare["name"]) == 8
        refused = http.post("/v1/chat/completions", headers=bearer(ANNOTATOR), json=question())
        assert refused.status_code == 403
        assert refused.json()["error"]["message"] == "this needs an API key with the role use"
        assert http.head("/v1/models", headers=bearer(ANNOTATOR)).status_code == 403
        assert http.head("/v1/models", headers=bearer(USER)).status_code == 200


def test_a_path_without_a_route_is_told_to_every_key(server: ScriptedServer) -> None:
    with server.http as http:
        assert http.get("/v1/chat/completion", headers=bearer(ANNOTATOR)).status_code == 404
        assert http.get("/v1/chat/completions", headers=bearer(ANNOTATOR)).status_code == 405


def test_without_keys_everyone_has_all_roles(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as unlocked, unlocked.http as http:
        assert http.get("/v1/caller").json() == {"name": "anonymous", "roles": list(ROLES)}


@pytest.mark.parametrize(
    ("content", "about"),
    [
        (f"{USER} admin", "there are use, annotate, operate"),
        (f"{USER} use,", "there are use, annotate, operate"),
        (f"{USER} use;annotate", "there are use, annotate, operate"),
        (f"{USER} use two words", "a name is"),
        (f"{USER} use bell\a", "a name is"),
        (f"{USER} use\n{USER} operate", "this key has other roles on another line"),
        ("short use", "a key is 8 to 512"),
    ],
)
def test_a_malformed_line_is_an_error_without_the_key(tmp_path: Path, content: str, about: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(SettingsError, match=about) as caught:
        ApiKeys.of(Settings(api_keys_file=file))
    assert USER not in str(caught.value)
