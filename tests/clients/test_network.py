"""Proxies and certificates of the environment, in both clients and in the commands that use them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients.any_client import Kind
from tests.clients.peer import Peer
from tests.clients.scripts import completion
from tests.live import WINNOW
from winnow.clients import AsyncClient, Client, ConnectionFailed, RefusedByServer, UnreadableAnswer, UnusableEnvironment
from winnow.clients.network import is_this_machine, parse_address, route_to

SECRET = "hunter2"
AWAY = "http://winnow.test/v1"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = completion().model_dump_json().encode()
PLAIN = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
PROXY_VARIABLES = [name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_PROXY")]
VARIABLES = [*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def ask(kind: Kind, url: str) -> str:
    """Ask one question without retries; the client is made here, as its errors are part of the test."""
    client = kind(url, max_retries=0, timeout=10)
    if isinstance(client, Client):
        with client:
            return client.answer("hi", model="m").text
    async with client:
        return (await client.answer("hi", model="m")).text


def answering(reply: bytes) -> Peer:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        connection.sendall(reply)

    peer = Peer(serve)
    return peer


@pytest.fixture
def proxy() -> Iterator[tuple[Peer, str]]:
    peer = answering(PLAIN)
    with peer.listening() as url:
        yield peer, url.removesuffix("/v1")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_that_works_is_used(
    client_kind: Kind, variable: str, proxy: tuple[Peer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, url = proxy
    monkeypatch.setenv(variable, url.replace("//", f"//user:{SECRET}%40@"))
    assert await ask(client_kind, AWAY) == "Paris."
    (request,) = peer.requests
    assert request.startswith(b"POST http://winnow.test/v1/chat/completions ")
    assert b"proxy-authorization: basic dxnlcjpodw50zxiyqa==" in request.lower()  # user:hunter2@, in any case


async def test_loopback_is_reached_directly(client_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in front of it was asked for 127.0.0.1, its own, and the server was blamed for its answer."""
    peer = answering(PLAIN)
    with peer.listening() as url:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "socks5://nowhere.invalid:1")
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
        assert await ask(client_kind, url) == "Paris."
        assert await ask(client_kind, url.replace("127.0.0.1", "localhost")) == "Paris."
    assert all(request.startswith(b"POST /v1/") for request in peer.requests)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "ip6-localhost", "127.0.0.1", "127.8.9.1", "127.1", "::1",
             "::ffff:127.0.0.1", "0.0.0.0", "::"],
)  # fmt: skip
def test_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host", ["localhost.example.org", "127.example.org", "10.0.0.1", "128.0.0.1", "::2", "mylocalhost"]
)
def test_other_machines(host: str) -> None:
    assert not is_this_machine(host)


BROKEN = [
    ("socks5://10.0.0.1:1080", "SOCKS"),
    ("socks5h://10.0.0.1:1080", "SOCKS"),
    ("socks4://10.0.0.1:1080", "neither http"),
    ("http://10.0.0.1:port", "not the address"),
    ("http://10.0.0.1:99999", "not the address"),
    ("http://", "not the address"),
    ("http:10.0.0.1:3128", "not the address"),
    ("http://a b:1", "not the address"),
    ("http://[::1", "not the address"),
    (f"http://user:1/{SECRET}@10.0.0.1:3128", "not the address"),
    (f"http://user:1#{SECRET}@10.0.0.1:3128", "not the address"),
    (f"http://user:{SECRET}/@10.0.0.1:3128", "not the address"),
    ("http://\udce9.test:1", "not the address"),
    (f"http://{'a' * 70}.test", "not the address"),
]


@pytest.mark.parametrize(("value", "words"), BROKEN)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_proxy_that_cannot_be_used_is_named(
    kind: Kind, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.clients.network.find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UnusableEnvironment, match=f"^ALL_PROXY .*{words}.*unset ALL_PROXY.*winnow.test") as caught:
        kind(AWAY)
    assert "\n" not in str(caught.value)
    assert not any(part in str(caught.value) for part in (SECRET, "10.0.0.1", "user:1"))


def test_a_variable_that_the_address_does_not_need_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://10.0.0.1:1080")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    monkeypatch.setenv("SSLKEYLOGFILE", "/nowhere/keys")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    Client(AWAY).close()
    monkeypatch.setenv("ALL_PROXY", "socks5://10.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "other.test, winnow.test")
    Client(AWAY).close()
    monkeypatch.setenv("ALL_PROXY", "")
    monkeypatch.delenv("NO_PROXY")
    Client(AWAY).close()


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("*", True),
        ("other.test,*", True),
        ("winnow.test", True),
        ("test", True),
        (".test", True),
        ("*.test", True),
        (".winnow.test", False),
        ("now.test", False),
        ("winnow.test.", True),
        ("winnow.test:80", True),
        ("winnow.test:8000", False),
        ("http://winnow.test", True),
        ("https://winnow.test", False),
        ("all://winnow.test", True),
        ("a.test b.test WINNOW.TEST", True),
        ("[::1,fd00::/8,:,://,[", False),
        ("", False),
    ],
)
def test_names_in_no_proxy(no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (route_to(httpx.URL(AWAY)).proxy is None) is direct


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("winnow.test.", "winnow.test", True),
        ("bücher.test", "bücher.test", True),
        ("bücher.test", "xn--bcher-kva.test", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "11.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3:80", True),
        ("10.1.2.3", "10.1.2.3:81", False),
        ("[fd00::7]", "fd00::/8", True),
        ("[fd00::7]", "fd00::7", True),
        ("[fd00::7]", "[fd00::7]:80", True),
        ("[fd00::7]", "10.0.0.0/8", False),
    ],
)
def test_addresses_in_no_proxy(host: str, no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (route_to(httpx.URL(f"http://{host}/v1")).proxy is None) is direct


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=30))
def test_any_value_is_a_route_or_an_error_that_names_the_variable(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", value)
        named = ""
        try:
            route_to(httpx.URL(AWAY)).http_options()
        except UnusableEnvironment as error:
            named = str(error)
        assert not named or named.startswith("http_proxy ")


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://a:", "http://a@"]))
def test_any_address_is_one_or_an_error_without_its_password(text: str, before: str) -> None:
    told = ""
    try:
        parse_address(before + text)
    except ValueError as error:
        told = str(error)
    assert "@" not in before + text or len(text) < 4 or text not in told


async def test_the_proxy_is_blamed_for_what_it_does(
    client_kind: Kind, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://user:{SECRET}@127.0.0.1:{closed_port}")
    shown = rf"the proxy http://127.0.0.1:{closed_port} \(ALL_PROXY\)"
    for url in (AWAY, "https://winnow.test/v1"):
        with pytest.raises(ConnectionFailed, match=f"^{shown} cannot be reached: .*unset ALL_PROXY") as caught:
            await ask(client_kind, url)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [b"403 Forbidden", b"407 Proxy Authentication Required", b"502 Bad Gateway"])
async def test_the_proxys_refusal_is_its_own(client_kind: Kind, status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = answering(b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" % status)
    with peer.listening() as url:
        monkeypatch.setenv("all_proxy", url.removesuffix("/v1"))
        with pytest.raises(
            RefusedByServer, match=rf"^the proxy http://127.*\(all_proxy\).* answered {status.decode()}"
        ):
            await ask(client_kind, AWAY)
        with pytest.raises(
            ConnectionFailed, match=rf"^the proxy http://127.*\(all_proxy\) does not connect.*{status.decode()}"
        ) as caught:
            await ask(client_kind, "https://winnow.test/v1")
        assert caught.value.is_transient is status.startswith(b"5")
    assert [request.split()[0] for request in peer.requests] == [b"POST", b"CONNECT"]


async def test_a_page_of_the_proxy_is_no_answer(client_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
    with peer.listening() as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        with pytest.raises(UnreadableAnswer, match=r"through the proxy http://127.*\(HTTP_PROXY\) answered 200"):
            await ask(client_kind, AWAY)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_cannot_be_loaded_are_named_for_https_alone(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "absent", tmp_path / "ca.pem", tmp_path / "a\nb"):
        monkeypatch.setenv(variable, str(path))
        Client(AWAY).close()
        with pytest.raises(UnusableEnvironment, match=f"^{variable} .*unset {variable}$"):
            Client("https://winnow.test/v1")
    monkeypatch.setenv(variable, "")
    Client("https://winnow.test/v1").close()
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'absent'}:{tmp_path}")
    Client("https://winnow.test/v1").close()
    monkeypatch.delenv("SSL_CERT_DIR")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "absent" / "keys"))
    with pytest.raises(UnusableEnvironment, match=r"^SSLKEYLOGFILE"):
        Client("https://winnow.test/v1")


async def test_a_server_without_tls_is_not_called_silent(client_kind: Kind) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Peer(serve).listening() as url, pytest.raises(ConnectionFailed, match="no secure connection to https://127"):
        await ask(client_kind, url.replace("http", "https"))


COMMANDS = {
    "chat": ["chat", "--url"],
    "loadtest": ["loadtest", "--requests", "1", "--url"],
    "distill": ["distill", "prompts.jsonl", "--out", "run", "--server"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks5://10.0.0.1:1"), ("http_proxy", "http://x:y"), ("HTTP_PROXY", "http://127.0.0.1:{port}")],
)
def test_each_command_ends_in_one_line(
    command: str, variable: str, value: str, closed_port: int, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
    environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [WINNOW, *COMMANDS[command], AWAY],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
        env=environment | {variable: value.format(port=closed_port)},
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = (done.stderr + (done.stdout if command == "chat" else "")).splitlines()
    assert line.startswith("winnow: ")
    assert variable in line
