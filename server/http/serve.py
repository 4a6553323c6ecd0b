"""Runs the HTTP server: binds, warms up, serves, and leaves in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import NoReturn

import uvicorn

from winnow.models.errors import EngineDead
from winnow.server.http.app import create_app
from winnow.server.service import Service, started
from winnow.server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

ENGINE_CHECK_SECONDS = 0.5
FAREWELL_SECONDS = 2.0
"""How long requests in flight have to fail in order once an engine has died."""


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. The port is taken before the engines start, so that a clash is told at once.

    Raises:
        SettingsError: the address cannot be bound.
        CheckpointError: a model cannot be served.
        EngineDead: an engine died; the others have been ended.
    """
    _log(settings.log_level)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _leave)
    with _bind(settings) as listener:
        os.register_at_fork(after_in_child=listener.close)  # an engine that held it would keep the port open
        with started(settings) as service:
            asyncio.run(_serve(service, listener))


def _log(level: str) -> None:
    """Log at `level`; what libraries say only from warnings on, unless everything is wanted."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level="DEBUG" if level == "debug" else "WARNING"
    )
    logging.getLogger("winnow").setLevel(level.upper())


def _leave(*_: object) -> NoReturn:
    """End the process through its `finally` blocks, engines included; uvicorn raises the signal again when it is done."""
    raise SystemExit(0)


def _bind(settings: Settings) -> socket.socket:
    """Take the port without listening on it yet: until the server is ready, connections are refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    return listener


class _Server(uvicorn.Server):
    """Uvicorn, saying that it is ready only once it listens."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        settings = self.service.settings
        logger.info(
            "ready: http://%s:%d/v1 serves %r, the best of %d", host, port, settings.model_name, settings.candidates
        )


async def _serve(service: Service, listener: socket.socket) -> None:
    await service.warm_up()
    settings = service.settings
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
    )
    server = _Server(config, service)
    watch = asyncio.create_task(_watch(service, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()
        logger.info("stopped; ending the engines")
    if not service.is_alive:
        raise EngineDead("an engine died; the server has stopped")


async def _watch(service: Service, server: uvicorn.Server) -> None:
    """Stop the server once an engine has died: it could not answer anything any more."""
    while service.is_alive:  # noqa: ASYNC110, vLLM sets no event when an engine dies
        await asyncio.sleep(ENGINE_CHECK_SECONDS)
    logger.error("an engine has died; stopping")
    service.dead.set()
    server.should_exit = True
    await asyncio.sleep(FAREWELL_SECONDS)
    server.force_exit = True
