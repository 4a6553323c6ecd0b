"""Reward models behind a URL: addresses, what servers tell, and where the files are that they are read by."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_servers import ModelServer, Reply, classifier, models
from winnow.models import demo
from winnow.models.engines.addresses import is_remote, parse_address
from winnow.models.engines.remote import Link, RemoteModel, discover, from_json, listed, model_folder, read_models
from winnow.models.engines.scorers import remote_scorer
from winnow.models.errors import CheckpointError


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer.running(classifier()) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("http://host:8000", "classify", "http://host:8000"),
        ("http://host:8000/", "classify", "http://host:8000"),
        ("https://host/rm/v1/", "classify", "https://host/rm"),
        ("HTTP://[::1]:8000/classify", "classify", "http://[::1]:8000"),
        ("judge:http://host:8000/v1", "judge", "http://host:8000/v1"),
        ("judge:https://host", "judge", "https://host/v1"),
        ("judge:https://host/openai/v1/chat/completions", "judge", "https://host/openai/v1"),
    ],
)
def test_an_address_is_read(text: str, kind: str, url: str) -> None:
    assert is_remote(text)
    assert parse_address(text) == (kind, url)


@pytest.mark.parametrize(
    "text",
    ["http://", "judge:", "judge:host", "ftp://host", "file:///etc/passwd", "http://user:secret@host", "http://h:0",
     "http://host:99999", "http://host?key=secret", "http://host#secret", "http:// secret", "judge:./secret",
     "judge:http://secret@host"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    assert is_remote(text)
    with pytest.raises(ValueError, match="URL") as told:
        parse_address(text)
    assert "secret" not in str(told.value)


@given(st.text(max_size=40))
def test_any_text_behind_a_scheme_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(f"http://{text}")
    except ValueError:
        return
    assert address.url.startswith("http://")
    assert not {"@", "?", "#", " "} & set(address.url)


@pytest.mark.parametrize("checkpoint", ["./rm", "/models/rm", "owner/name", "rm", "C:\\models", "judge"])
def test_folders_and_hub_ids_are_no_addresses(checkpoint: str) -> None:
    assert not is_remote(checkpoint)


@pytest.mark.parametrize(
    ("reply", "wanted", "reason"),
    [
        (Reply({}, 404), None, "is no model server"),
        (Reply({}, 401), None, "refuses the key"),
        (Reply({}, 307, {"Location": "/"}), None, "redirect"),
        (Reply(b"hello"), None, "is not JSON"),
        (Reply({"data": "x"}), None, "no list of models"),
        (Reply({"data": []}), None, "serves no model"),
        (Reply({"data": [{"id": "a"}, {"id": "b"}]}), None, "serves a, b; name one in the setting model"),
        (models("a"), "b", "does not serve b, but a"),
    ],
)
def test_a_server_without_the_model_is_refused(
    server: ModelServer, reply: Reply, wanted: str | None, reason: str
) -> None:
    server.script = lambda seen: reply
    with pytest.raises(CheckpointError, match=reason):
        discover("safety", Link(parse_address(server.url)), wanted)


def test_a_server_that_is_not_up_yet_is_waited_for_and_then_given_up(
    server: ModelServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("winnow.models.engines.remote.START_PAUSE", 0.01)
    replies = iter([Reply({}, 503), Reply(drop=True), models("rm", "an/id", 512)])
    server.script = lambda seen: next(replies)
    found = discover("safety", Link(parse_address(server.url)), None)
    assert (found.name, found.checkpoint, found.context) == ("rm", "id", 512)
    assert "waiting for the safety reward model" in caplog.text
    server.kill()
    with pytest.raises(CheckpointError, match=r"did not answer within 0\.05 s: it cannot be connected to"):
        discover("safety", Link(parse_address(server.url), start_seconds=0.05), None)


def found(root: str | None) -> RemoteModel:
    return RemoteModel(Link(parse_address("http://host:1")), "rm", root, 2048)


def test_the_tokenizer_is_the_configured_one_or_the_servers_own(tmp_path: Path) -> None:
    own = demo.weights("safety-rm")
    assert model_folder("safety", str(tmp_path), found(str(own))) == tmp_path
    assert model_folder("safety", None, found(str(own))) == own
    with pytest.raises(CheckpointError, match="no such folder"):
        model_folder("safety", str(tmp_path / "absent"), found(str(own)))


@pytest.mark.parametrize("root", [None, "/models/elsewhere", "owner/never-fetched", "../..", "not/a/hub/id"])
def test_a_tokenizer_that_is_not_here_is_asked_for_by_its_flag(root: str | None) -> None:
    with pytest.raises(CheckpointError, match="--safety-tokenizer"):
        model_folder("safety", None, found(root))


def test_a_remote_model_needs_no_weights_and_is_held_to_its_config(tmp_path: Path) -> None:
    for file in demo.weights("safety-rm").iterdir():
        if file.suffix == ".json":
            shutil.copy(file, tmp_path)
    scorer = remote_scorer("safety", found("owner/some-rm"), None, str(tmp_path), None)
    assert (scorer.kind, scorer.is_derived, scorer.card.name) == ("classify", True, "some-rm")
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    with pytest.raises(CheckpointError, match="a causal model without a reward head"):
        remote_scorer("safety", found(None), None, str(tmp_path), None)


def test_a_judges_card_is_its_roles_or_the_given_one(tmp_path: Path) -> None:
    judge = RemoteModel(Link(parse_address("judge:http://host:1")), "m")
    cards = {role: remote_scorer(role, judge, None, None, None).card for role in ("safety", "helpfulness")}
    assert {role: card.name for role, card in cards.items()} == {
        "safety": "judge-safety", "helpfulness": "judge-helpfulness"
    }  # fmt: skip
    (tmp_path / "own.toml").write_text('head = "score"')
    with pytest.raises(CheckpointError, match="is no judge's"):
        remote_scorer("safety", judge, tmp_path / "own.toml", None, None)


def test_a_certificate_that_is_not_trusted_is_not_waited_for() -> None:
    """It was waited for like a server that is still to start: ten minutes."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", request=request)

    link = Link(parse_address("https://host:1"), http_options={"transport": httpx.MockTransport(refuse)})
    with pytest.raises(CheckpointError, match="a certificate that is not trusted; name its issuer's in SSL_CERT_FILE"):
        discover("safety", link, None)


@given(st.text(st.characters() | st.characters(categories=["Cs"])), st.booleans())
def test_every_text_of_a_server_can_be_encoded(text: str, is_escaped: bool) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    sent = json.dumps({text: [text, 1.5]}, ensure_ascii=is_escaped).encode("utf-8", "surrogatepass")
    found = from_json(sent)
    assert found == {whole: [whole, 1.5]}
    assert from_json(json.dumps({"a": text}).encode("utf-16")) == {"a": whole}
    json.dumps(found, ensure_ascii=False).encode()


def test_a_models_name_of_half_a_character_can_be_told() -> None:
    answer = listed(parse_address("http://host:1"), 200, rb'{"data": [{"id": "a\ud83d", "root": "\ud83d/b"}]}')
    found = read_models(Link(parse_address("http://host:1")), answer, None)
    assert (found.name, found.root) == ("a\ufffd", "\ufffd/b")
