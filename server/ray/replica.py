"""A whole Winnow as a replica of Ray Serve: its engines, its HTTP application, its health, its counts and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow.models.errors import EngineDead
from winnow.server.aio import cancel
from winnow.server.api.app import create_app
from winnow.server.api.auth import ApiKeys
from winnow.server.api.logging import set_up as set_up_logging
from winnow.server.api.metrics import Metrics
from winnow.server.api.run import FAIL_SECONDS, raise_file_limit, recording
from winnow.server.ray.actor import Orders, prepare_process
from winnow.server.ray.exposition import merged, pages_of
from winnow.server.ray.scaling import CANDIDATES, PLACES

LEAVING_SECONDS = 0.2
"""Time for the last answers of a replica whose engine has died to reach the proxy, before its process ends."""
METRICS_SECONDS = 5.0
"""Longest wait for the metrics of all replicas; Prometheus gives up after ten."""


class Replica:
    """One replica; `orders` say which Winnow. Ray Serve calls what begins with `record_`, and `check_health`."""

    def __init__(self, orders: Orders) -> None:
        prepare_process(orders)
        set_up_logging(orders.settings)
        raise_file_limit()
        self._running = contextlib.ExitStack()
        try:
            service = self._running.enter_context(orders.open_service(orders.settings))
            self._service = self._running.enter_context(recording(service))
        except BaseException:
            self._running.close()
            raise
        self._metrics = Metrics(self._service)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Warm the engines up, and return the application."""
        await self._service.warm_up()
        self._watching = asyncio.create_task(self._watch())
        app = create_app(self._service, ApiKeys.of(self._service.settings), self._metrics, self.all_metrics)
        return OneRequestId(app)

    async def _watch(self) -> None:
        """End the process once an engine has died: the requests in flight get their 503, and Ray starts a replica.

        Idle as it is by then, it would be sent every new request until it is gone; it refuses them, and Ray sends them
        to another.
        """
        watch = asyncio.create_task(self._service.watch())
        try:
            await self._service.lifecycle.over()
        finally:
            cancel(watch)
        refuse_requests(_own_context())
        await self._service.lifecycle.drain(FAIL_SECONDS)
        await asyncio.sleep(LEAVING_SECONDS)
        os._exit(1)

    async def check_health(self) -> None:
        """Raise if the engines do not run.

        Raises:
            EngineDead: so it is.
        """
        if not self._service.is_alive:
            raise EngineDead("an engine has died or hangs")

    @property
    def _candidates(self) -> int:
        admission = self._service.admission
        return admission.in_flight + admission.queued_candidates

    def record_routing_stats(self) -> dict[str, float]:
        """Return what `winnow.server.ray.router` reads."""
        return {
            "candidates": self._candidates,
            "requests": self._service.lifecycle.requests,
            "default": self._service.settings.candidates.max,
            "time": time.time(),
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `winnow.server.ray.scaling` reads."""
        return {CANDIDATES: self._candidates, PLACES: self._service.admission.max_in_flight}

    async def own_metrics(self) -> tuple[str, Sequence[Metric]]:
        """Return this replica's name and its metrics."""
        return _own_context().replica_tag.rsplit("#", 1)[-1], list(self._metrics.registry.collect())

    async def all_metrics(self) -> bytes:
        """Return the metrics of all replicas; of this one alone if the others do not answer."""
        context, own = _own_context(), await self.own_metrics()
        answers: list[Any] = []
        with contextlib.suppress(Exception):  # Ray's own, of many kinds, while replicas come and go
            asked = _handle(context.deployment, context.app_name).broadcast("own_metrics")
            answers = await asked.results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        return merged({**pages_of(answers), own[0]: own[1]})

    def __del__(self) -> None:
        """End the engines, after Ray has waited for the requests in flight."""
        if hasattr(self, "_running"):  # the start may have failed
            self._running.close()


class OneRequestId:
    """Leaves out this application's own `x-request-id` of an answer: Ray's proxy adds the same one to each."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0].lower() != b"x-request-id"]
                message = {**message, "headers": kept}
            await send(message)

        await self._app(scope, receive, send_without)


def refuse_requests(context: Any) -> None:
    """Let the replica of `context` refuse every further request, which Ray then sends to another replica.

    Ray has no function for it: a replica refuses what is more than `max_ongoing_requests`, which it reads from here.
    Where a version of Ray reads it elsewhere, requests that come in the replica's last moments get a 503.
    """
    with contextlib.suppress(AttributeError, TypeError):
        vars(context._deployment_config)["max_ongoing_requests"] = 0


def _own_context() -> Any:
    from ray import serve

    return serve.get_replica_context()


def _handle(deployment: str, app: str) -> Any:
    from ray import serve

    return serve.get_deployment_handle(deployment, app)
