"""The HTTP server as a process: bind, start the engines, warm up, serve, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import uvicorn

from winnow.models.errors import EngineDead, SettingsError, ShuttingDown
from winnow.server.aio import cancel
from winnow.server.api.app import create_app
from winnow.server.api.auth import ApiKeys
from winnow.server.api.h11_protocol import ConnectionLimits, bounded_protocol
from winnow.server.api.logging import set_up as set_up_logging
from winnow.server.api.logging import unhandled
from winnow.server.service import Service, started
from winnow.server.settings import Settings
from winnow.server.settings.hosts import is_loopback, shown
from winnow.server.store.opening import recorder, require_store

logger = logging.getLogger(__name__)

FAIL_SECONDS = 2
"""Time for requests in flight to fail with an answer once the service has ended."""
FULL_COLLECTION_EVERY = 1000
"""Middle-generation garbage collections per full one: a full one about every eight minutes of full load."""
MIN_FILES, MAX_FILES = 512, 65_536
"""Open files: the fewest that the engines need, and the most that the limit is raised to."""


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. The port is bound before the engines start, to report a conflict at once.

    Raises:
        SettingsError: the address cannot be bound, or is reachable from other machines without a key; or the store
            cannot be where the settings say.
        CheckpointError: a model cannot be served.
        EngineDead: an engine died; the others have been ended.
    """
    set_up_logging(settings)
    keys = ApiKeys.of(settings)
    require_keys(settings, keys)
    require_store(settings)
    raise_file_limit()
    _require_scratch()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _exit)
    with _bind(settings) as listener:
        os.register_at_fork(after_in_child=listener.close)  # an engine's copy would keep the port open
        with started(settings) as service, recording(service) as recorded:
            asyncio.run(_serve(recorded, keys, listener))


@contextlib.contextmanager
def recording(service: Service) -> Iterator[Service]:
    """Yield `service` with its recorder, if it has a store; the engines run already, as none may be forked by then."""
    settings = service.settings
    if settings.record != "off":
        logger.info("recording is %s: chat answers are stored with all of their candidates", settings.record)
    found = recorder(settings, service.template, service.combiner)
    if found is None:
        yield service
        return
    with found.running():
        yield dataclasses.replace(service, recorder=found)


def require_keys(settings: Settings, keys: ApiKeys, front: str | None = None) -> None:
    """Check that an address reachable from other machines has a key, or that the operator allows anonymous requests.

    `front` names what listens instead of this server, at an address that the settings do not tell.

    Raises:
        SettingsError: neither holds.
    """
    if keys or (not front and is_loopback(settings.host.lower())):
        return
    if settings.allow_anonymous:
        if not settings.trusted_hosts:
            logger.warning(
                "without API keys only requests to localhost or to %s are answered, by their Host header: name the "
                "other hosts that clients use in trusted_hosts (names, networks such as 10.0.0.0/8, or *)",
                shown(settings.host),
            )
        return
    listener = front or f"host {settings.host}"
    raise SettingsError(
        f"{listener} can be reached from other machines and no API key is set: set WINNOW_API_KEYS or "
        "--api-keys-file, or let everyone in with --allow-anonymous and name the hosts that they use in --trusted-hosts"
    )


def raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed, at most to `MAX_FILES`; each connection and engine needs some.

    Raises:
        SettingsError: the limit is too low to start the engines.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES)
    if reachable < MIN_FILES:
        raise SettingsError(f"this process may open {most} files; Winnow needs {MIN_FILES}: raise `ulimit -n`")
    if now != resource.RLIM_INFINITY and now < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, most))


def _require_scratch() -> None:
    """Check that there is a writable folder for temporary files; the engines put their sockets there.

    Raises:
        SettingsError: there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise SettingsError(
            "no folder for temporary files can be written to: the disk is full, or set TMPDIR"
        ) from None


def _exit(*_: object) -> NoReturn:
    """Exit through the `finally` blocks, which end the engines: a signal handler.

    While uvicorn runs it handles signals itself, and raises them again when it is done.
    """
    raise SystemExit(0)


def _bind(settings: Settings) -> socket.socket:
    """Bind the port without listening: connections are refused until the server is ready."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Name the protocol: asyncio otherwise does not recognise TCP and leaves Nagle's algorithm on, 45 ms per
    # answer on a kept-alive connection.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    return listener


class _Server(uvicorn.Server):
    """A uvicorn server that logs "ready" once it listens, and keeps listening while it drains.

    Until the last request is answered, a load balancer can thus see `/ready` at 503 and `/health` at
    200. A second signal ends the requests in flight.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._loop = asyncio.get_running_loop()
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another process took the port while the engines were loading
            raise SettingsError(f"cannot listen: {error.strerror}") from None
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        settings = self.service.settings
        address = f"http://{shown(host)}:{port}/v1"
        logger.info("ready: %s serves %r, the best of %d", address, settings.model_name, settings.candidates.max)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)
        self._loop.call_soon_threadsafe(self._on_signal)

    def _on_signal(self) -> None:
        if self._drain:
            logger.warning("a second signal: not waiting for requests in flight")
            self.service.lifecycle.end(ShuttingDown("the server was told to stop at once"))
        else:
            logger.info("draining: %d requests in flight", self.service.lifecycle.requests)
            self._drain = asyncio.create_task(self._drain_and_exit())

    async def _drain_and_exit(self) -> None:
        await self.service.lifecycle.drain(self.service.settings.shutdown_seconds)
        self.should_exit = True


def configure(service: Service, keys: ApiKeys) -> uvicorn.Config:
    """Return uvicorn's configuration for `service`: bounded connections, and no logs of its own."""
    settings = service.settings
    limits = ConnectionLimits(
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        max_header_bytes=settings.max_header_bytes,
        keys_required=bool(keys),
    )
    return uvicorn.Config(
        create_app(service, keys),
        http=bounded_protocol(limits),
        ws="none",
        workers=1,  # else uvicorn reads WEB_CONCURRENCY, and raises where it is no number
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client must not choose the address that it is queued and logged by
        timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]  # uvicorn only adds it to the time
        timeout_graceful_shutdown=FAIL_SECONDS,
    )


async def _serve(service: Service, keys: ApiKeys, listener: socket.socket) -> None:
    asyncio.get_running_loop().set_exception_handler(unhandled)
    await service.warm_up()
    # The modules stay for good: without this, each full collection scans them and pauses every request for 0.3 s.
    gc.collect()
    gc.freeze()
    # Full collections under load find hardly any cycles, and each would take 20 ms every few seconds at 256 candidates.
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION_EVERY)
    watch = asyncio.create_task(service.watch())
    saving = asyncio.create_task(service.gains.keep_saving()) if service.gains else None
    server = _Server(configure(service, keys), service)
    exit_when_over = asyncio.create_task(_exit_when_over(server))
    try:
        await server.serve(sockets=[listener])
    finally:
        cancel(watch)
        cancel(exit_when_over)
        if saving:
            cancel(saving)
            await asyncio.wait([saving])
        await service.leave_loop()
        gc.unfreeze()  # else what native modules hold is never freed, and they report it as leaks on the way out
        logger.info("stopped; ending the engines")
        if not service.is_alive:
            raise EngineDead("an engine died or hung; the server has stopped")


async def _exit_when_over(server: _Server) -> None:
    """Stop the server once its service has ended, because it can answer nothing any more."""
    await server.service.lifecycle.over()
    server.should_exit = True
