"""Both clients, so that every test of one is a test of the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from tests.clients.scripts import Face, Script, opened
from winnow.clients import AsyncClient, Client

Open = Callable[..., AbstractAsyncContextManager[Face]]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def client_kind(request: pytest.FixtureRequest) -> type[Client] | type[AsyncClient]:
    chosen: type[Client] | type[AsyncClient] = request.param
    return chosen


@pytest.fixture
def opening(client_kind: type[Client] | type[AsyncClient]) -> Open:
    """Opens a client of a script."""

    def open_client(script: Script, url: str = "http://winnow.test/v1", **options: Any) -> Any:
        return opened(client_kind, url, transport=httpx.MockTransport(script), **options)

    return open_client
