"""Reward models on other servers behind the whole of Winnow: answers, outages, recovery, identity, plans."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, scripted
from tests.model_servers import ModelServer, Reply, classifier, graded, judge
from winnow.clients import Client
from winnow.clients import errors as client_errors
from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines import endpoint, model_server
from winnow.models.engines.memory import NOT_FIXED
from winnow.models.engines.registry import KINDS
from winnow.models.errors import CheckpointError, ModelUnavailable, SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message
from winnow.server.cli import check
from winnow.server.cli.main import app
from winnow.server.distill.backends import in_process
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.identity import identity
from winnow.server.distill.options import RunOptions
from winnow.server.distill.plans import Choices
from winnow.server.doctor.subject import subject
from winnow.server.engine_options import engine_options
from winnow.server.memory_plan import planned_engines
from winnow.server.pipeline.request import Defaults, Request, RequestOptions, resolve
from winnow.server.reward_models import inspect_reward_models, scorings
from winnow.server.service import Service
from winnow.server.settings import Settings, load

SAFETY = demo.weights("safety-rm")
KEY = "sk-nobody-may-see-this"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)


def whole(text: str) -> str:
    return json.dumps({"grade": 1 + len(text) % 10})


@pytest.fixture
def safety() -> Iterator[ModelServer]:
    with ModelServer.running(classifier(root=str(SAFETY))) as running:
        yield running


@pytest.fixture
def helpfulness() -> Iterator[ModelServer]:
    with ModelServer.running(judge(whole)) as running:
        yield running


def settings_of(safety: ModelServer, helpfulness: ModelServer, **more: Any) -> Settings:
    flat = {"safety_rm": safety.url, "helpfulness_rm": f"judge:{helpfulness.url}/v1", **more}
    return load(**flat)


def service_of(settings: Settings, tokenizer: Tokenizer, policy: ScriptedPolicy | None = None) -> Service:
    """A service on a scripted policy, whose reward models are found and started as `started` does."""
    plain = scripted(tokenizer, policy or ScriptedPolicy())
    served = scorings(settings, inspect_reward_models(settings), tokenizer, plain.template)
    options = {
        name: engine_options(settings, name, NOT_FIXED, fork=False, card=one.scorer.card)
        for name, one in served.items()
    }
    engines = {
        name: KINDS[one.scorer.kind].reward_model(options[name], one.scorer, one.reader) for name, one in served.items()
    }
    return replace(plain, settings=settings, scorings=served, **engines)


@contextlib.contextmanager
def serving(settings: Settings, tokenizer: Tokenizer, policy: ScriptedPolicy | None = None) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(service_of(settings, tokenizer, policy)) as server:
        yield server


def test_both_kinds_score_behind_the_same_flags(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer
) -> None:
    with serving(settings_of(safety, helpfulness), tokenizer) as server, server.http as http:
        answer = server.chat(best_of=4)
        assert answer.status_code == 200
        assert len(answer.json()["best_of_n"]["scored"]) == 4
        version = http.get("/version").json()
        metrics = http.get("/metrics").text
    assert version["reward_models"] == {
        "safety": {"kind": "classify", "model": "rm", "address": safety.url, "card": "winnow-demo-safety"},
        "helpfulness": {
            "kind": "judge", "model": "judge", "address": f"{helpfulness.url}/v1", "card": "judge-helpfulness"
        },
    }  # fmt: skip
    assert version["calibrated"] == {"safety": True, "helpfulness": False}
    assert version["combiner"] == "safe_first"
    assert 'winnow_reward_model_up{model="safety"} 1.0' in metrics
    assert 'winnow_judge_tokens_total{kind="prompt",model="helpfulness"} 400.0' in metrics
    ids = [one for seen in safety.posts() for one in seen.body["input"]]
    assert all(one[-1] == tokenizer.eos_id for one in ids[1:]), "the policy's ids, and EOS"


def test_an_outage_refuses_requests_before_sampling_and_ends_without_a_restart(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer
) -> None:
    sampled: list[object] = []
    policy = ScriptedPolicy(see=sampled.append)
    with serving(settings_of(safety, helpfulness), tokenizer, policy) as server, server.http as http:
        before = server.chat(best_of=4, seed=1).json()["choices"]
        helpfulness.kill()
        first = server.chat(best_of=4)
        count = len(sampled)
        again, stream = server.chat(best_of=4), server.chat(best_of=4, stream=True)
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Hi"}], "answers": ["a"]}
        rewards = http.post("/v1/rewards", json=body)
        for refused in (first, again, stream, rewards):
            assert refused.status_code == 503
            error = refused.json()["error"]
            assert (error["code"], error["type"]) == ("reward_model_unavailable", "server_error")
            assert "the helpfulness reward model is not available" in error["message"]
            assert refused.headers["retry-after"] == "5"
            assert "x-should-retry" not in refused.headers
        assert len(sampled) == count, "nothing was sampled while the circuit was open"
        assert http.get("/health").json() == {"status": "ok"}
        ready = http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert list(ready.json()["unavailable"]) == ["helpfulness"]
        metrics = http.get("/metrics").text
        assert "winnow_ready 0.0" in metrics
        assert 'winnow_reward_model_up{model="helpfulness"} 0.0' in metrics
        with (
            Client(f"{server.url}/v1", max_retries=0) as client,
            pytest.raises(client_errors.RewardModelUnavailable) as caught,
        ):
            client.answer("Hello")
        assert caught.value.retry_after == 5
        helpfulness.start()
        assert helpfulness.wait_for(lambda: http.get("/ready").status_code == 200)
        assert server.chat(best_of=4, seed=1).json()["choices"] == before


def test_an_outage_in_the_middle_ends_the_request_and_a_stream_with_an_event(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer
) -> None:
    """Never an answer of the candidates that were scored before."""
    served = iter(range(100))
    with serving(settings_of(safety, helpfulness), tokenizer) as server:
        helpfulness.script = lambda seen: graded("7") if not next(served) else Reply(drop=True)
        text = server.chat(best_of=4, stream=True).text
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == "reward_model_unavailable"
        assert server.service.admission.in_flight == 0


def test_a_candidate_whose_score_fails_leaves_the_others_in_the_race(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer
) -> None:
    helpfulness.script = judge(lambda text: "none of it" if '"answer 2"' in text else "7")
    with serving(settings_of(safety, helpfulness), tokenizer) as server:
        report = server.chat(best_of=4).json()["best_of_n"]
        assert len(report["scored"]) == 3
        helpfulness.script = judge(lambda text: "none of it")
        failed = server.chat(best_of=4)
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "no_scored_candidate")
        assert server.chat(best_of=4).status_code == 500, "nonsense is no outage"


def test_a_client_that_leaves_closes_the_requests_of_its_scores(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer
) -> None:
    never = threading.Event()
    with serving(settings_of(safety, helpfulness), tokenizer) as server:
        helpfulness.script = lambda seen: Reply({}, hold=never)
        with server.http as http, contextlib.suppress(Exception):
            http.post("/v1/chat/completions", json={
                "model": "winnow-demo", "messages": [{"role": "user", "content": "Hi"}], "best_of": 4
            }, timeout=0.3)  # fmt: skip
        assert helpfulness.wait_for(lambda: helpfulness.left == 4)
        assert server.service.helpfulness.unfinished == 0


def test_a_key_is_sent_and_shown_nowhere(
    safety: ModelServer,
    helpfulness: ModelServer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "winnow")
    monkeypatch.setenv("WINNOW_SAFETY_KEY", KEY)
    (tmp_path / "key").write_text(f"# a judge's\n{KEY}-2\n")
    settings = settings_of(safety, helpfulness, helpfulness_key_file=tmp_path / "key")
    with serving(settings, tokenizer) as server, server.http as http:
        server.chat(best_of=2)
        safety.script = lambda seen: Reply({"error": {"message": f"wrong key {KEY}"}}, 401)
        refused = server.chat(best_of=2)
        shown = [refused.text, http.get("/version").text, http.get("/ready").text, http.get("/metrics").text]
    assert {seen.headers["authorization"] for seen in safety.seen} == {f"Bearer {KEY}"}
    assert {seen.headers["authorization"] for seen in helpfulness.seen} == {f"Bearer {KEY}-2"}
    assert "refuses the key (status 401)" in refused.text
    assert all(KEY not in text for text in (*shown, caplog.text, repr(settings), str(server.service)))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"safety_model": "m"}, "safety.model is for a model on another server"),
        ({"safety_key_file": "k"}, "safety.key_file is for a model on another server"),
        ({"safety_tokenizer": "t"}, "safety.tokenizer is for a model on another server"),
        ({"safety_rm": "judge:http://h:1", "safety_tokenizer": "t"}, "safety.tokenizer is not for a judge"),
        ({"safety_rm": "http://h:1", "safety_key": "a b"}, "safety.key: a key is printable"),
        ({"safety_rm": "http://h:1", "safety_key_file": "absent"}, r"safety.key_file: "),
        ({"safety_rm": "http://h:1", "safety_key": "k", "safety_key_file": "absent"}, "exclude each other"),
    ],
)
def test_settings_without_effect_are_refused(flags: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        inspect_reward_models(load(**flags))


@pytest.mark.parametrize("name", ["seconds", "start_seconds", "connections"])
def test_limits_of_a_server_are_refused_for_a_model_that_is_on_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "winnow.toml").write_text(f"[helpfulness]\n{name} = 5\n")
    with pytest.raises(SettingsError, match=f"helpfulness.{name} is for a model on another server"):
        inspect_reward_models(load(tmp_path / "winnow.toml"))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('checkpoint = "http://h:1"\nkind = "judge"', "safety.kind is judge, but its checkpoint is one for classify"),
        ('checkpoint = "judge:http://h:1"\nkind = "vllm"', "safety.kind is vllm, but its checkpoint is one for judge"),
        ('checkpoint = "http://h:1"\ntokenizer = "./absent"', "no such folder: ./absent"),
        ('checkpoint = "http://h:1"\ncard = "absent.toml"', "absent.toml"),
        ('checkpoint = "http://h:1"\ncard = "{judge}"', "is not for a /classify server"),
        ('checkpoint = "judge:http://h:1"\ncard = "{linear}"', "is no judge's"),
        ('checkpoint = "http://h:1"\n[helpfulness]\ncheckpoint = "./absent"', "absent"),
        ('checkpoint = "http://h:1"\n[helpfulness]\ncheckpoint = "http://h:1"\nkey_file = "absent"', "key_file"),
    ],
)
def test_what_is_wrong_here_is_told_before_a_server_is_waited_for(
    table: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that is not there was told after ten minutes of waiting for a server that was still to be started."""

    def asked(*_: object) -> None:
        pytest.fail("the server is asked")

    monkeypatch.setattr("winnow.server.remote_models.discover", asked)
    (tmp_path / "linear.toml").write_text('head = "score"')
    (tmp_path / "judge.toml").write_text('adapter = "judge"\ngrades = [1, 9]\ntemplate = "{{ messages }}{{ answer }}"')
    for name in ("linear", "judge"):
        table = table.replace(f"{{{name}}}", str(tmp_path / f"{name}.toml"))
    (tmp_path / "winnow.toml").write_text(f"[safety]\n{table}\n")
    with pytest.raises((SettingsError, CheckpointError), match=reason):
        inspect_reward_models(load(tmp_path / "winnow.toml"))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"policy": "judge:http://host:8000"}, "policy.checkpoint: judge: is not for this model; write http://HOST"),
        ({"policy": "host:8000"}, "an address of a server begins with http:// or chat:http://"),
        ({"policy": "http://u:hidden@host"}, "policy.checkpoint: a URL with a user name or password"),
        ({"safety_rm": "chat:http://host"}, "chat: is not for this model; write http://HOST"),
        ({"safety_rm": "http://host:1,judge:http://host:2"}, "the servers of a pool are of one kind"),
        ({"safety_rm": "http://host:1,http://host:1/"}, "one URL is given twice"),
        ({"policy": "http://host:1,"}, "there is nothing between two commas"),
        ({"safety_rm": "http://u:hidden@host"}, "safety.checkpoint .*: a URL with a user name or password"),
        ({"safety_rm": "127.0.0.1:8000"}, "an address of a server begins with http:// or judge:http://"),
        ({"helpfulness_rm": "judge:host"}, "helpfulness.checkpoint .*: it is not a URL"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_line(flags: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as told:
        load(**flags)
    assert "hidden" not in str(told.value)
    assert "\n" not in str(told.value)


def test_the_wrong_kind_is_refused(safety: ModelServer, helpfulness: ModelServer) -> None:
    settings = settings_of(safety, helpfulness)
    vllm = settings.model_copy(update={"safety": settings.safety.model_copy(update={"kind": "vllm"})})
    with pytest.raises(CheckpointError, match=r"safety\.kind is vllm, but its checkpoint is one for classify"):
        inspect_reward_models(vllm)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    safety: ModelServer, helpfulness: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert inspect_reward_models(settings_of(safety, helpfulness))["safety"].kind == "classify"


CHOICES = Choices(4, (1.0,), False, 1.0, 64, "llama2", 0)


def run_models(settings: Settings) -> dict[str, Any]:
    options = RunOptions("p.jsonl", Path("out"), CHOICES)
    found: dict[str, Any] = identity(options, settings, TEMPLATES["llama2"], "")["models"]
    return found


def test_a_run_knows_the_model_but_not_its_address(safety: ModelServer, helpfulness: ModelServer) -> None:
    before = run_models(settings_of(safety, helpfulness))
    assert list(before) == ["policy", "safety", "helpfulness"]
    assert before["safety"]["root"] == "safety-rm"
    assert len(before["safety"]["sha256"]) == 64
    assert before["helpfulness"]["card"]["name"] == "judge-helpfulness"
    assert "127.0.0.1" not in json.dumps(before)
    with ModelServer.running(judge(whole)) as moved:
        assert run_models(settings_of(safety, moved)) == before
    helpfulness.script = judge(whole, name="a larger judge")
    assert run_models(settings_of(safety, helpfulness)) != before


def request() -> Request:
    defaults = Defaults(
        candidates=2, least=2, max_candidates=4, temperature=1.0, top_p=1.0, max_tokens=8, combiner="safe_first"
    )
    options = RequestOptions(candidates=2, max_tokens=8, seed=1)
    return resolve((Message("user", "Hello"),), options, defaults)


@pytest.mark.asyncio(loop_scope="function")
async def test_an_offline_run_waits_for_a_server_that_is_down(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "OUTAGE_PAUSE", 0.005)
    service = service_of(settings_of(safety, helpfulness), tokenizer)
    backend = InProcess(service, 0.0)
    before = (await backend(request())).selection.winner
    helpfulness.kill()
    waiting = [asyncio.create_task(backend(request())) for _ in range(3)]
    async with asyncio.timeout(10):
        while not service.outages:  # noqa: ASYNC110, a probe's thread
            await asyncio.sleep(0.002)
    helpfulness.start()
    for answered in await asyncio.wait_for(asyncio.gather(*waiting), 10):
        assert answered.selection.winner.reward == before.reward
    helpfulness.kill()
    with pytest.raises(ModelUnavailable):
        await InProcess(service, 0.0, outage_seconds=0.05)(request())


def test_a_plan_leaves_them_out_and_says_so(safety: ModelServer) -> None:
    assert list(planned_engines(load(safety_rm=safety.url))) == ["policy", "helpfulness"]
    result = CliRunner().invoke(app, ["plan", "--card-gib", "80", "--safety-rm", safety.url])
    assert result.exit_code == 0
    assert "without memory here: safety" in " ".join(result.output.split())
    assert not safety.seen, "a plan asks no server"


def test_the_doctor_tries_a_model_here_in_place_of_it(safety: ModelServer, tmp_path: Path) -> None:
    found = subject(load(safety_rm=safety.url, safety_key="secret"), "tiny", tmp_path)
    assert Path(found.settings.safety.checkpoint).is_dir()
    assert "secret" not in json.dumps(found.options)


@pytest.mark.asyncio(loop_scope="function")
async def test_check_compares_what_has_no_weights_here_with_itself(
    safety: ModelServer, helpfulness: ModelServer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for file in SAFETY.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    settings = settings_of(safety, helpfulness, safety_tokenizer=str(tmp_path), canary=False)
    service = service_of(settings, tokenizer)
    comparisons = await check.against_references(service, await check.score_served(service), "float32")
    assert [(one.is_own_reference, one.differs) for one in comparisons] == [(True, False)] * 2
    shown = io.StringIO()
    Console(file=shown, width=160).print(check._table(comparisons))
    assert "Weights not here, so only alone against batched: safety, helpfulness." in shown.getvalue()
