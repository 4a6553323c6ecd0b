"""The proxies' example files, really run: streams, cancellation, keep-alive, errors, and servers that drain or die."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, question, scripted, wait_until
from tests.proxies import SECONDS, Proxy, proxies, running
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt

CHAT = "/v1/chat/completions"
PAUSE = 0.05
"""Between two writes, so that they are two segments; nothing waits for it."""


@pytest.fixture(scope="module", params=proxies())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def winnow(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """A server whose candidates wait until `hold` is set, with room for 16 of them and as many that wait."""
    service = scripted(
        tokenizer,
        ScriptedPolicy(hold=asyncio.Event()),
        max_candidates=16,
        max_candidates_in_flight=16,
        max_queued_candidates=16,
    )
    with ScriptedServer.start(service) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(name: str, winnow: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(name, tmp_path_factory.mktemp(name), winnow.url) as started:
        yield started


@pytest.fixture(autouse=True)
def held(winnow: ScriptedServer) -> None:
    winnow.call(policy(winnow).hold.clear)  # type: ignore[union-attr]


def policy(server: ScriptedServer) -> ScriptedPolicy:
    assert isinstance(server.service.policy, ScriptedPolicy)
    return server.service.policy


def release(server: ScriptedServer) -> None:
    server.call(policy(server).hold.set)  # type: ignore[union-attr]


def idle(server: ScriptedServer) -> bool:
    return not policy(server).running and not server.service.admission.in_flight


def parts(proxy: Proxy, **fields: object) -> tuple[bytes, bytes]:
    """Return head and body of a request with 16 candidates."""
    body = json.dumps(question(best_of_n={"candidates": 16}, **fields)).encode()
    host = ":".join(map(str, proxy.address))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("split", [False, True], ids=["one segment", "two segments"])
def test_a_client_that_leaves_frees_its_candidates(
    stream: bool, split: bool, proxy: Proxy, winnow: ScriptedServer
) -> None:
    head, body = parts(proxy, stream=stream)
    with socket.create_connection(proxy.address, SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in (head, body) if split else (head + body,):
            client.sendall(segment)
            time.sleep(PAUSE)
        assert wait_until(lambda: len(policy(winnow).running) == 16, SECONDS)
        if stream:
            assert b"200 OK" in client.recv(65536)
    assert wait_until(lambda: idle(winnow), SECONDS), "candidates run on for nobody"


def test_a_stream_arrives_as_it_is_made(proxy: Proxy, winnow: ScriptedServer) -> None:
    with proxy.http as http, http.stream("POST", CHAT, json=question(stream=True)) as response:
        lines = (line for line in response.iter_lines() if line)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
        assert not policy(winnow).hold.is_set()  # type: ignore[union-attr]  # the first piece is here, unsampled
        release(winnow)
        assert list(lines)[-1] == "data: [DONE]"


def test_answers_errors_and_ids_pass_unchanged(proxy: Proxy, winnow: ScriptedServer) -> None:
    release(winnow)
    with proxy.http as http:
        answer = http.post(CHAT, json=question(), headers={"x-request-id": "mine-1"})
        wrong = http.post(CHAT, json=question(temperature=9), headers={"x-request-id": "mine-2"})
        large = http.post(CHAT, json=question("word " * 300_000))
    assert (answer.status_code, wrong.status_code) == (200, 400)
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    assert wrong.headers.get_list("x-request-id") == ["mine-2"]
    assert wrong.json()["error"]["param"] == "temperature"
    assert large.json()["error"]["code"] == "context_length_exceeded"  # the server's answer to 1.5 MB, not the proxy's


def test_a_full_server_says_429_through_the_proxy(proxy: Proxy, winnow: ScriptedServer) -> None:
    full = question(best_of_n={"candidates": 16})
    with ThreadPoolExecutor(2) as pool, proxy.http as http:
        taken = [pool.submit(proxy.chat, best_of_n={"candidates": 16}) for _ in range(2)]
        assert wait_until(lambda: winnow.service.admission.queued_candidates == 16, SECONDS)
        refused = http.post(CHAT, json=full)
        release(winnow)
        assert [one.result().status_code for one in taken] == [200, 200]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"]


GONE = 0
"""The status of a server that ends the connection instead of answering."""


class Stub(ThreadingHTTPServer):
    """A server that answers with `status`, and notes each request's path and connection but the probes'."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.status = status
        self.seen: list[tuple[str, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class StubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, self.client_address[1]))
        if self.server.status == GONE:
            self.close_connection = True  # as if the process had been killed
        else:
            self.answer(self.server.status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "0")  # a proxy that sends a request again does not read a body
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stubs() -> Iterator[tuple[Stub, Stub]]:
    with Stub() as one, Stub() as two:
        threads = [threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01}) for stub in (one, two)]
        for thread in threads:
            thread.start()
        yield one, two
        for stub in (one, two):
            stub.shutdown()
        for thread in threads:
            thread.join(SECONDS)


def test_connections_are_used_again(name: str, stubs: tuple[Stub, Stub], tmp_path: Path) -> None:
    with running(name, tmp_path / name, *(stub.url for stub in stubs)) as proxy, proxy.http as http:
        for _ in range(12):
            assert http.post(CHAT, json={}).status_code == 200
    seen = [connection for stub in stubs for _, connection in stub.seen]
    assert len(seen) == 12
    assert len(set(seen)) <= 4  # one for each server, and one more each for a probe's that came between


def test_what_a_server_did_not_take_is_sent_again(name: str, stubs: tuple[Stub, Stub], tmp_path: Path) -> None:
    one, two = stubs
    with running(name, tmp_path / name, one.url, two.url) as proxy, proxy.http as http:
        for one.status in (503, GONE):
            assert {http.post(CHAT, json={}).status_code for _ in range(6)} == {200}
        one.status = two.status = 503
        before = len(one.seen) + len(two.seen)
        assert http.post(CHAT, json={}).status_code == 503
        assert before + 2 <= len(one.seen) + len(two.seen) <= before + 3  # it cannot go around all servers
        before = len(one.seen) + len(two.seen)
        assert http.post("/v1/feedback", json={}).status_code == 503
        assert len(one.seen) + len(two.seen) == before + 1
        one.status = two.status = GONE
        before = len(one.seen) + len(two.seen)
        with proxy.http as fresh:  # on a connection that was used before, HAProxy leaves it to the client to try again
            assert fresh.post("/v1/feedback", json={}).status_code == 502
        assert len(one.seen) + len(two.seen) == before + 1
        one.status = two.status = 429
        before = len(one.seen) + len(two.seen)
        assert http.post(CHAT, json={}).status_code == 429
        assert len(one.seen) + len(two.seen) == before + 1


class SlowPolicy(ScriptedPolicy):
    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        await asyncio.sleep(0.05)
        return await super().sample(prompt, sampling, index, handle)


def test_a_server_that_drains_loses_nothing(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One of two servers ends under load, as after SIGTERM: it drains, and then its port is closed."""
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        ending = stack.enter_context(ExitStack())
        first = ending.enter_context(ScriptedServer.start(scripted(tokenizer, SlowPolicy())))
        second = stack.enter_context(ScriptedServer.start(scripted(tokenizer, SlowPolicy())))
        proxy = stack.enter_context(running(name, tmp_path / name, first.url, second.url))
        ended, answers = threading.Event(), list[httpx.Response]()

        def load() -> None:
            while not ended.is_set():
                answers.append(proxy.chat())

        loads = [pool.submit(load) for _ in range(4)]
        try:
            assert wait_until(lambda: len(answers) >= 12, SECONDS)
            asyncio.run_coroutine_threadsafe(first.service.lifecycle.drain(SECONDS), first.loop).result(SECONDS)
            passed = len(answers)
            assert wait_until(lambda: len(answers) >= passed + 12, SECONDS)
            ending.close()
            passed = len(answers)
            assert wait_until(lambda: len(answers) >= passed + 12, SECONDS)
        finally:
            ended.set()
        assert not any(one.exception() for one in loads)
    assert {answer.status_code for answer in answers} == {200}
