"""Fixtures of the clients' tests: the kind of client, and a function that opens one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.clients.any_client import Kind, Open, opened
from tests.clients.scripts import Script
from winnow.clients import AsyncClient, Client


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def client_kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def opening(client_kind: Kind) -> Open:
    """Return a function that opens a client whose server follows a script."""

    def open_client(script: Script, url: str = "http://winnow.test/v1", **options: Any) -> Any:
        return opened(client_kind, url, transport=httpx.MockTransport(script), **options)

    return open_client
