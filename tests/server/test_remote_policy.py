"""A policy on other servers behind the whole of Winnow: answers, mixes, outages, recovery, plans, identity."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from tests.fakes import ScriptedRewardModel
from tests.live import ScriptedServer, question, scripted
from tests.model_servers import ModelServer, Reply, Seen, chat, classifier, completion, judge, policy
from winnow.clients import Client
from winnow.clients import errors as client_errors
from winnow.models import demo
from winnow.models.engines import endpoint, environment, hardware, model_server
from winnow.models.engines.memory import NOT_FIXED
from winnow.models.engines.registry import KINDS
from winnow.models.errors import CheckpointError, SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.server import service as services
from winnow.server.cli.main import app
from winnow.server.engine_options import engine_options
from winnow.server.memory_plan import planned_engines
from winnow.server.model_identity import model_identities
from winnow.server.remote_models import found_policy, with_files
from winnow.server.settings import Settings, load

POLICY = demo.weights("policy")
WORDS = ["Paris.", "It is Paris.", "I do not know.", "The capital is Paris."]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)


@pytest.fixture
def sampled(tokenizer: Tokenizer) -> Any:
    """What a server samples: one of a few answers, by the seed."""

    def ids(body: dict[str, Any]) -> Sequence[int]:
        text = WORDS[(body.get("seed") or 0) % len(WORDS)]
        return [*tokenizer.encode_continuation(f" {text}"), tokenizer.eos_id]

    return policy(ids, root=str(POLICY))


@pytest.fixture
def first(sampled: Any) -> Iterator[ModelServer]:
    with ModelServer.running(sampled) as running:
        yield running


@pytest.fixture
def second(sampled: Any) -> Iterator[ModelServer]:
    with ModelServer.running(sampled) as running:
        yield running


@contextlib.contextmanager
def serving(tokenizer: Tokenizer, *servers: ModelServer, prefix: str = "") -> Iterator[ScriptedServer]:
    """Winnow on scripted reward models, whose policy is found and started as `started` does."""
    settings = with_files(
        load(policy=prefix + ",".join(server.url for server in servers), served_model_name="winnow-demo")
    )
    remote, folder = found_policy(settings.policy)
    options = replace(engine_options(settings, "policy", NOT_FIXED, fork=False), checkpoint=str(folder))
    engine = KINDS[settings.policy.runs_as].policy(options, tokenizer, remote)
    score = ScriptedRewardModel(logit=lambda ids: float(sum(ids) % 7 - 3))
    plain = scripted(tokenizer, safety=score, helpfulness=score)
    service = replace(plain, settings=settings, policy=engine, template=settings.chat_template)
    with ScriptedServer.start(service) as server:
        yield server


def report(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["choices"], body["best_of_n"]["scored"], body["usage"]


def test_a_pool_answers_as_one_server_would_and_outlives_one(
    first: ModelServer, second: ModelServer, tokenizer: Tokenizer
) -> None:
    ask: dict[str, Any] = {"best_of_n": {"candidates": 8, "return_candidates": True}, "seed": 5}
    with serving(tokenizer, first) as server:
        alone = report(server.chat(**ask))
        assert {item["text"] for item in alone[1]} <= set(WORDS)
    with serving(tokenizer, first, second) as server, server.http as http:
        assert report(server.chat(**ask)) == alone
        assert http.get("/ready").json() == {"status": "ready"}
        first.kill()
        assert report(server.chat(**ask)) == alone
        ready = http.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {
            "status": "ready", "degraded": {"policy": "1 of 2 servers cannot be used: it cannot be connected to"}
        })  # fmt: skip
        metrics = http.get("/metrics").text
        assert f'winnow_remote_server_up{{engine="policy",server="{first.url}"}} 0.0' in metrics
        assert f'winnow_remote_server_up{{engine="policy",server="{second.url}"}} 1.0' in metrics
        assert http.get("/version").json()["policy"] == {
            "kind": "completions", "model": "rm", "address": f"{first.url}, {second.url}", "card": None
        }  # fmt: skip
        first.start()
        assert first.wait_for(lambda: "degraded" not in http.get("/ready").json())
        assert report(server.chat(**ask)) == alone


def test_a_policy_that_is_gone_is_told_and_taken_back(first: ModelServer, tokenizer: Tokenizer) -> None:
    with serving(tokenizer, first) as server, server.http as http:
        before = report(server.chat(seed=1))
        first.kill()
        for _ in range(2):
            refused = server.chat(seed=1)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "policy_unavailable")
            assert refused.json()["error"]["message"] == "the policy is not available: it cannot be connected to"
            assert refused.headers["retry-after"]
        with Client(f"{server.url}/v1", max_retries=0) as client, pytest.raises(client_errors.PolicyUnavailable):
            client.answer([{"role": "user", "content": "Hello"}])
        assert http.get("/ready").json() == {
            "status": "unavailable", "unavailable": {"policy": "it cannot be connected to"}
        }  # fmt: skip
        assert http.get("/health").status_code == 200
        first.start()
        assert first.wait_for(lambda: http.get("/ready").status_code == 200)
        assert report(server.chat(seed=1)) == before


def test_a_client_that_leaves_frees_every_server(first: ModelServer, second: ModelServer, tokenizer: Tokenizer) -> None:
    never = threading.Event()
    with serving(tokenizer, first, second) as server:
        healthy = first.script

        def endless(seen: Seen) -> Reply:
            if seen.method == "GET":
                return healthy(seen)
            return Reply(events=[completion(seen, [5], None)] if seen.body.get("stream") else (), hold=never)

        first.script = second.script = endless
        for more in ({}, {"early_rejection": {"at_tokens": [50], "keep": 0.5}}):
            first.left = second.left = 0
            first.seen.clear()
            second.seen.clear()
            body = json.dumps(question("Hi", best_of_n={**more, "candidates": 16}))
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            address = urlsplit(server.url)
            with socket.create_connection((address.hostname, address.port)) as client:
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                assert first.wait_for(lambda: len(first.posts()) + len(second.posts()) == 16)
            assert (len(first.posts()), len(second.posts())) == (8, 8)
            assert first.wait_for(lambda: first.left + second.left == 16)


def test_the_whole_start_needs_no_engine_here(
    first: ModelServer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three models are elsewhere: neither a plan nor an engine of this machine is asked for."""
    with (
        ModelServer.running(classifier(root=str(demo.weights("safety-rm")))) as safety,
        ModelServer.running(classifier(root=str(demo.weights("helpfulness-rm")))) as helpfulness,
    ):
        settings = load(policy=first.url, safety_rm=safety.url, helpfulness_rm=helpfulness.url)
        monkeypatch.setattr(services, "prepare", lambda **_: None)
        with services.started(settings) as service:
            assert service.settings.policy.files == str(POLICY)
            assert {name: type(engine).__name__ for name, engine in service.engines.items()} == {
                "policy": "RemotePolicy", "safety": "RemoteClassifier", "helpfulness": "RemoteClassifier"
            }  # fmt: skip
            assert service.context == 2047
        assert not planned_engines(settings)
        found = model_identities(service.settings, service.template)["policy"]
        assert (found["id"], found["root"], found["kind"]) == ("rm", POLICY.name, "completions")


@pytest.fixture
def without_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution for GPUs on a machine that has none."""

    def card() -> None:
        raise CheckpointError("no GPU can be used")

    monkeypatch.setattr(environment, "distributions", lambda **_: ["vllm"])
    monkeypatch.setattr(hardware, "card", card)
    hardware.first_card.cache_clear()
    monkeypatch.setattr(services, "prepare", lambda **_: None)


@pytest.mark.usefixtures("without_card")
def test_no_card_is_needed_where_all_models_are_elsewhere(first: ModelServer) -> None:
    """The image has the distribution for GPUs, and ended with a line about a missing card."""
    with (
        ModelServer.running(classifier(root=str(demo.weights("safety-rm")))) as safety,
        ModelServer.running(classifier(root=str(demo.weights("helpfulness-rm")))) as helpfulness,
    ):
        with services.started(load(policy=first.url, safety_rm=safety.url, helpfulness_rm=helpfulness.url)) as service:
            assert service.card is None
        urls = ["--policy", first.url, "--safety-rm", safety.url, "--helpfulness-rm", helpfulness.url]
        result = CliRunner().invoke(app, ["plan", *urls])
        assert result.exit_code == 0, result.output
        assert "policy, safety, helpfulness" in " ".join(result.output.split())
        with (
            pytest.raises(CheckpointError, match="no GPU can be used"),
            services.started(load(policy=first.url, safety_rm=safety.url)),
        ):
            raise AssertionError("one model is here")


def test_a_plan_leaves_the_policy_out_and_asks_no_server(first: ModelServer) -> None:
    result = CliRunner().invoke(app, ["plan", "--card-gib", "80", "--policy", first.url])
    assert result.exit_code == 0, result.output
    assert "without memory here: policy" in " ".join(result.output.split())
    assert not first.seen


@pytest.mark.parametrize(
    ("table", "error", "reason"),
    [
        ('checkpoint = "p"\nkind = "judge"', CheckpointError, "policy.kind is judge, but its checkpoint is for vllm"),
        ('checkpoint = "p"\nmodel = "m"', SettingsError, "policy.model is for a model on another server"),
        ('checkpoint = "http://127.0.0.1:9"\nkind = "vllm"', CheckpointError, "its checkpoint is one for completions"),
        ('checkpoint = "http://127.0.0.1:9"\ntokenizer = "./none"', CheckpointError, "policy: no such folder: ./none"),
        ('checkpoint = "http://127.0.0.1:9"\nstart_seconds = 0', CheckpointError, "policy: the server at http://127"),
    ],
)
def test_what_is_wrong_here_is_told_in_one_line(
    tmp_path: Path, table: str, error: type[Exception], reason: str
) -> None:
    (tmp_path / "winnow.toml").write_text(f"[policy]\n{table}\n")
    with pytest.raises(error, match=reason):
        with_files(load(tmp_path / "winnow.toml"))


def test_without_a_tokenizer_here_its_flag_is_named(tokenizer: Tokenizer) -> None:
    with ModelServer.running(policy(lambda body: [7], root="owner/never-fetched")) as server:
        settings: Settings = load(policy=server.url)
        with pytest.raises(CheckpointError, match="--policy-tokenizer"):
            with_files(settings)
        assert "never-fetched" not in json.dumps(settings.model_name)


@contextlib.contextmanager
def chat_endpoint(answers: Any) -> Iterator[ModelServer]:
    with ModelServer.running(chat(answers)) as running:
        yield running


def test_a_chat_endpoint_is_the_policy_of_the_whole_of_winnow(tokenizer: Tokenizer) -> None:
    with (
        chat_endpoint(lambda body: WORDS[: body.get("n", 1)]) as there,
        serving(tokenizer, there, prefix="chat:") as server,
        server.http as http,
    ):
        answer = server.chat(best_of_n={"candidates": 4, "return_candidates": True})
        choices, scored, usage = report(answer)
        assert [item["text"] for item in scored] == WORDS
        assert choices[0]["message"]["content"] in WORDS
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 40)
        assert 'winnow_policy_tokens_total{kind="prompt"} 20.0' in http.get("/metrics").text
        assert http.get("/version").json()["policy"]["address"] == f"{there.url}/v1"
        for fields in ({"logprobs": True}, {"best_of_n": {"early_rejection": {"at_tokens": [5], "keep": 0.5}}}):
            refused = server.chat(**fields)
            assert (refused.status_code, "chat endpoint" in refused.text) == (400, True)
        raw = http.post("/v1/completions", json={"model": "winnow-demo", "prompt": "Once"})
        assert (raw.status_code, raw.json()["error"]["param"]) == (400, "prompt")
        assert len(there.posts()) == 1


def test_a_chat_endpoint_starts_without_files_and_has_an_identity(tokenizer: Tokenizer) -> None:
    with chat_endpoint(lambda body: WORDS[:1]) as there, ModelServer.running(judge(lambda text: "7")) as safety:
        settings = load(
            policy=f"chat:{there.url}/v1", safety_rm=f"judge:{safety.url}", helpfulness_rm=f"judge:{safety.url}"
        )
        with services.started(settings) as service:
            found = model_identities(service.settings, service.template)["policy"]
            assert (found["id"], found["kind"], found["sha256"]) == ("gpt", "chat", None)
            assert service.settings.model_name == "gpt", "not a part of the URL"
        with pytest.raises(SettingsError, match="has a template of its own"):
            with_files(load(policy=f"chat:{there.url}/v1", chat_template="llama2"))
