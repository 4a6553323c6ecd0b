"""Runs the HTTP server: binds, warms up, serves, and leaves in order."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import tempfile
from types import FrameType
from typing import NoReturn

import uvicorn

from winnow.models.errors import EngineDead, SettingsError, ShuttingDown
from winnow.server.api import logs
from winnow.server.api.app import create_app
from winnow.server.api.auth import ApiKeys
from winnow.server.api.h11_protocol import ConnectionLimits, bounded_protocol
from winnow.server.pipeline.lifecycle import give_up
from winnow.server.service import Service, started
from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

FAREWELL_SECONDS = 2
"""How long requests in flight have to fail in order once the service's life is over."""
RARE_COLLECTIONS = 1000
"""Collections of the middle generation to one of everything: about one in eight minutes of full load."""
FEWEST_FILES, ENOUGH_FILES = 512, 65_536


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. The port is taken before the engines start, so that a clash is told at once.

    Raises:
        SettingsError: the address cannot be bound, or nobody would have to show a key on it.
        CheckpointError: a model cannot be served.
        EngineDead: an engine died; the others have been ended.
    """
    logs.set_up(settings)
    keys = ApiKeys.of(settings)
    _require_keys(settings, keys)
    _allow_files()
    _require_scratch()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _leave)
    with _bind(settings) as listener:
        os.register_at_fork(after_in_child=listener.close)  # an engine that held it would keep the port open
        with started(settings) as service:
            asyncio.run(_serve(service, keys, listener))


def _require_keys(settings: Settings, keys: ApiKeys) -> None:
    """Nobody listens beyond this machine without a key by accident."""
    if keys or settings.allow_anonymous or _is_loopback(settings.host):
        return
    raise SettingsError(
        f"host {settings.host} can be reached from other machines and no API key is set: set WINNOW_API_KEYS or "
        "--api-keys-file, or let everybody in with --allow-anonymous"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allow_files() -> None:
    """Raise the limit of open files as far as it goes; every connection and every engine needs some.

    Raises:
        SettingsError: it stays too low to start the engines.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)
    if reachable < FEWEST_FILES:
        raise SettingsError(f"this process may open {most} files; Winnow needs {FEWEST_FILES}: raise `ulimit -n`")
    if now != resource.RLIM_INFINITY and now < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, most))


def _require_scratch() -> None:
    """The engines talk through sockets in a temporary folder.

    Raises:
        SettingsError: there is none that can be written to.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise SettingsError(
            "no folder for temporary files can be written to: the disk is full, or set TMPDIR"
        ) from None


def _leave(*_: object) -> NoReturn:
    """End the process through its `finally` blocks, engines included; uvicorn raises the signal again when it is done."""
    raise SystemExit(0)


def _bind(settings: Settings) -> socket.socket:
    """Take the port without listening on it yet: until the server is ready, connections are refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named by its protocol, or asyncio would not recognise TCP and leave Nagle's delay on: 45 ms on each kept-alive answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    return listener


class _Server(uvicorn.Server):
    """Uvicorn that says it is ready only once it listens, and that goes on listening while it drains.

    A load balancer can thus read from `/ready` that no more is taken, and `/health` stays 200, until the last request has
    been answered. A second signal does not wait for that.
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
        logger.info(
            "ready: http://%s:%d/v1 serves %r, the best of %d", host, port, settings.model_name, settings.candidates.max
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)
        self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        if self._drain:
            logger.warning("a second signal: not waiting for requests in flight")
            self.service.lifecycle.end(ShuttingDown("the server was told to stop at once"))
        else:
            logger.info("draining: %d requests in flight", self.service.lifecycle.requests)
            self._drain = asyncio.create_task(self._drained())

    async def _drained(self) -> None:
        await self.service.lifecycle.drain(self.service.settings.shutdown_seconds)
        self.should_exit = True


def configure(service: Service, keys: ApiKeys) -> uvicorn.Config:
    """How uvicorn runs the application: its connections are bounded, and it logs nothing of its own."""
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
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what a client says of its own address is nothing to queue or to log it by
        timeout_graceful_shutdown=FAREWELL_SECONDS,
    )


async def _serve(service: Service, keys: ApiKeys, listener: socket.socket) -> None:
    asyncio.get_running_loop().set_exception_handler(logs.unhandled)
    await service.warm_up()
    # What the imports made is here to stay: looking through it again and again would halt everybody for 0.3 s each time.
    gc.collect()
    gc.freeze()
    # Nor must what 256 candidates consist of be looked through every few seconds, for 20 ms each time; hardly any of it is in cycles.
    gc.set_threshold(*gc.get_threshold()[:2], RARE_COLLECTIONS)
    watch = asyncio.create_task(service.watch())
    server = _Server(configure(service, keys), service)
    farewell = asyncio.create_task(_leave_when_over(server))
    try:
        await server.serve(sockets=[listener])
    finally:
        give_up(watch)
        give_up(farewell)
        logger.info("stopped; ending the engines")
        if not service.is_alive:
            raise EngineDead("an engine died or hung; the server has stopped")


async def _leave_when_over(server: _Server) -> None:
    """Stop the server once its service is over: it could not answer anything any more."""
    await server.service.lifecycle.over()
    server.should_exit = True
