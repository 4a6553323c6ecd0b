from __future__ import annotations

import asyncio

import httpx

from winnow.loadtests.connection_pool import ConnectionPool


async def test_no_request_waits_for_a_connection_and_connections_are_reused() -> None:
    inside, most, opened = 0, 0, set()
    all_inside = asyncio.Event()

    async def serve(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if most == 50:
            all_inside.set()
        await all_inside.wait()
        inside -= 1
        return httpx.Response(200)

    pool = ConnectionPool({"transport": httpx.MockTransport(serve), "base_url": "http://winnow.test"})

    async def request() -> None:
        async with pool.connection() as http:
            opened.add(id(http))
            assert (await http.get("/")).status_code == 200

    for _ in range(3):
        await asyncio.gather(*(request() for _ in range(50)))
    await pool.close()
    assert most == 50
    assert len(opened) == 50
