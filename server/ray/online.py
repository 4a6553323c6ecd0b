"""`winnow serve --ray`: the application on Ray Serve until a signal, which drains it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from winnow.models.errors import SettingsError
from winnow.server.api.logging import set_up as set_up_logging
from winnow.server.ray.app import NAME, Replicas, application
from winnow.server.ray.cluster import cards_of, connected, line_of, share_of
from winnow.server.ray.haproxy import cure
from winnow.server.service import started
from winnow.server.settings import Settings
from winnow.server.settings.hosts import is_loopback, shown

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 30
"""Time beyond a request's own limit until Ray's proxy gives it up: for one that no replica can take."""

LEFT = (
    "the application that ran before is not removed, but may have lost some or all replicas to this one: give its own "
    "command again"
)


def serve_on_ray(settings: Settings, address: str, replicas: Replicas) -> None:
    """Serve on the Ray cluster at `address` until SIGINT or SIGTERM, which lets the requests in flight finish.

    Raises:
        SettingsError: Ray is not installed, no cluster is there or it has no room, or a setting is not for replicas.
    """
    set_up_logging(settings)
    cure(os.environ)
    with connected(address) as ray:
        # Cards may come with nodes that the cluster starts as they are needed; CPUs are shared among all that may run.
        share = share_of(ray, replicas.least if cards_of(settings) else replicas.most, settings)
        app = application(settings, replicas, share, started)
        with _signalled() as told, _running(app, settings):
            where = f"http://{shown(settings.host)}:{settings.port}/v1"
            count = replicas.least if replicas.least == replicas.most else f"{replicas.least} to {replicas.most}"
            logger.info("ready: %s serves %r on Ray, replicas: %s", where, settings.model_name, count)
            told.wait()
            logger.info("draining")


@contextmanager
def _running(app: Any, settings: Settings) -> Iterator[None]:
    """Run the application for the length of the block; Ray Serve itself ends with the last application.

    One that ran before is taken over, and left where that fails.

    Raises:
        SettingsError: it cannot start.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        _start_proxies(settings)
    except (RuntimeError, RayError, RayServeException) as error:
        raise SettingsError(f"Ray Serve cannot start: {line_of(error)}") from None
    others = NAME in serve.status().applications  # of another command; until the update has succeeded
    try:
        try:
            serve.run(app, name=NAME, route_prefix="/")
        except (RuntimeError, RayError, RayServeException) as error:
            left = f"; {LEFT}" if others else ""
            raise SettingsError(f"the replicas cannot start: {_reason() or line_of(error)}{left}") from None
        others = False
        yield
    finally:
        if not others:
            _remove()


def _remove() -> None:
    from ray import serve

    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()


def _start_proxies(settings: Settings) -> None:
    """Start Ray Serve, if it does not run yet.

    Raises:
        SettingsError: it runs, and listens elsewhere.
    """
    from ray import serve

    serve.start(
        proxy_location="HeadOnly" if is_loopback(settings.host.lower()) else "EveryNode",
        http_options={
            "host": settings.host,
            "port": settings.port,
            "request_timeout_s": settings.request_seconds + ANSWER_SECONDS,
            "keep_alive_timeout_s": int(settings.idle_seconds),
        },
    )
    _require_address(settings)


def _require_address(settings: Settings) -> None:
    """Check that Ray Serve listens where the settings say: one that ran already keeps its own address.

    Raises:
        SettingsError: it listens elsewhere.
    """
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    found = client.http_config if client else None
    if found and (found.host, found.port) != (settings.host, settings.port):
        raise SettingsError(
            f"Ray Serve listens on {found.host} port {found.port} of that cluster already: give --host {found.host} "
            f"--port {found.port}"
        )


def _reason() -> str:
    """Return what Ray Serve says of the application that could not start."""
    from ray import serve

    found = serve.status().applications.get(NAME)
    messages = [deployment.message for deployment in found.deployments.values()] if found else []
    lines = [line for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Yield what the first signal sets within the block; until then and after the second one a signal ends at once."""
    told = threading.Event()

    def tell(*_: object) -> None:
        if told.is_set():
            _exit()
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, tell)
    yield told


def _exit() -> NoReturn:
    raise SystemExit(1)
