"""HTTP clients for many requests at once, each with a connection of its own.

httpx's pool looks at all of its connections for every request: with 1,000 of them the tester would be what is slow (measured: 31 ms of
CPU for a request among 250). A lane has one connection; whoever asks takes a free lane, the one used last, or opens another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0)


class Lanes:
    """As many clients as there were requests at once; close them. `options` are those of `httpx.AsyncClient`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {"verify": httpx.create_ssl_context(), **options, "limits": ONE}
        self._free: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client for one request; it is closed, not used again, if the request is cancelled."""
        client = self._free.pop() if self._free else httpx.AsyncClient(**self._options)
        try:
            yield client
        except BaseException:
            await client.aclose()
            raise
        self._free.append(client)

    async def close(self) -> None:
        """Close all connections; no lane may be taken."""
        for client in self._free:
            await client.aclose()
