"""The hosts that a server answers to, with and without keys."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live import ScriptedServer, scripted
from winnow.models.errors import UntrustedHost
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.hosts import TrustedHosts, to_origin_form
from winnow.server.settings import Settings
from winnow.server.settings.hosts import is_loopback, split_authority, trusted_host

LOOPBACK = [
    "localhost",
    "LocalHost.",
    "app.localhost",
    "127.0.0.1",
    "127.0.0.1.",
    "127.255.0.9",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "ip6-localhost",
]
FOREIGN = [
    "",
    "evil.test",
    "localhost.evil.test",
    "127.0.0.1.evil.test",
    "evil-localhost",
    "127.0.0.1@evil.test",
    "evil.test:80@127.0.0.1",
    "localhost:80:80",
    "localhost:x",
    "localhost, evil.test",
    "localhost/evil.test",
    "[::1].evil.test",
    "::1",
    "[::2]",
    "[fe80::1%25lo]",
    "0.0.0.0",
    "192.168.1.7",
    "10.0.0.1",
    "128.0.0.1",
    ".",
]


def trusts(shown: str | Sequence[str], target: str | None = None, *, has_keys: bool = False, **settings: Any) -> bool:
    hosts = [shown] if isinstance(shown, str) else shown
    scope = {"headers": [(b"host", each.encode("latin-1")) for each in hosts]}
    try:
        TrustedHosts(Settings(**settings), has_keys=has_keys).check(scope, target)
    except UntrustedHost:
        return False
    return True


@pytest.mark.parametrize("port", ["", ":", ":80", ":65535"])
def test_without_keys_only_loopback_hosts_are_answered(port: str) -> None:
    assert [host for host in LOOPBACK if not trusts(host + port)] == []
    assert [host for host in FOREIGN if trusts(host + port)] == []
    assert not trusts([])
    assert not trusts(["localhost", "localhost"])
    assert all(trusts(host, has_keys=True) for host in FOREIGN)


@given(st.ip_addresses())
def test_an_address_is_trusted_if_and_only_if_it_is_loopback(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    host = f"[{address.exploded}]" if address.version == 6 else str(address)
    assert trusts(host) == (mapped or address).is_loopback


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_no_host_header_raises_anything_else(host: str) -> None:
    assert trusts(host) in (True, False)
    assert trusts(host, trusted_hosts="*.example.org,10.0.0.0/8") in (True, False)


@pytest.mark.parametrize("has_keys", [True, False])
def test_trusted_hosts_are_names_domains_addresses_and_networks(has_keys: bool) -> None:
    hosts = "Winnow., *.example.org, 10.0.0.0/8, [fd00::1], fd01::/16, 192.168.1.7"
    trusted = ["winnow", "WINNOW.:80", "a.b.example.org", "10.9.8.7:80", "[fd00::1]", "[fd01::9]:80", "192.168.1.7"]
    assert [host for host in trusted if not trusts(host, has_keys=has_keys, trusted_hosts=hosts)] == []
    foreign = ["example.org", "winnow.evil.test", "11.0.0.1", "[fd00::2]", "10.evil.test", "evil.test"]
    assert [host for host in foreign if trusts(host, has_keys=has_keys, trusted_hosts=hosts)] == []
    assert trusts("localhost", has_keys=has_keys, trusted_hosts=hosts) == (not has_keys)
    assert all(trusts(host, has_keys=has_keys, trusted_hosts="*") for host in (*foreign, *FOREIGN))


def test_the_address_that_the_server_was_told_to_listen_on_is_its_own() -> None:
    for host in ("192.168.1.7", "0.0.0.0", "winnow.lan"):
        assert trusts(f"{host}:8000", host=host)
        assert not trusts("evil.test", host=host)
    assert trusts("[fd00:0::1]", host="[fd00::1]")


def test_the_host_of_an_absolute_target_counts_as_well() -> None:
    assert trusts("localhost", "127.0.0.1:80")
    for header, target in (("localhost", "evil.test"), ("evil.test", "localhost"), ("localhost", "")):
        assert not trusts(header, target)


@pytest.mark.parametrize(
    "wrong", ["http://winnow", "winnow:8000", "a b", "", "*.", "10.0.0.0/99", "[::1]:80", "a*b", "w/"]
)
def test_an_entry_that_is_no_host_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a host"):
        trusted_host(wrong)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,9}(\.[a-z0-9-]{1,9}){0,3}", fullmatch=True), st.integers(0, 65535))
def test_a_name_has_one_spelling(name: str, port: int) -> None:
    for spelling in (name, name.upper(), f"{name}."):
        assert split_authority(f"{spelling}:{port}") == (name, port)
        assert trusted_host(spelling) == name
    assert is_loopback(name) == (
        name == "localhost" or name.endswith(".localhost") or name in ("localhost.localdomain",)
    )


@pytest.mark.parametrize(
    ("raw_path", "host", "path"),
    [
        (b"http://a/b%20c", "a", "/b c"),
        (b"HTTPS://a:1", "a:1", "/"),
        (b"http:///b", "", "/b"),
        (b"http://a//b", "a", "//b"),
        (b"/http://a/b", None, "unchanged"),
        (b"ftp://a/b", None, "unchanged"),
        (b"*", None, "unchanged"),
        (b"a:1", None, "unchanged"),
    ],
)
def test_origin_form(raw_path: bytes, host: str | None, path: str) -> None:
    scope = {"raw_path": raw_path, "path": "unchanged"}
    assert to_origin_form(scope) == host
    assert scope["path"] == path


def answer(server: ScriptedServer, method: str, target: str, *headers: str) -> tuple[int, bytes]:
    host, port = server.url.removeprefix("http://").split(":")
    version = "1.1" if headers else "1.0"
    head = "\r\n".join([f"{method} {target} HTTP/{version}", *headers, "Connection: close", "", ""])
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        received = b""
        while part := connection.recv(65536):
            received += part
    return int(received.split()[1]), received


def test_a_rebinding_page_is_refused_and_probes_are_open(tokenizer: Tokenizer) -> None:
    """Regression: a page whose name resolves to 127.0.0.1 could read the answers of a server without keys."""
    with ScriptedServer.start(scripted(tokenizer)) as server:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/version", "/nowhere"):
            status, received = answer(server, "GET", path, "Host: evil.test:8000")
            assert status == 421, path
            assert b'"untrusted_host"' in received
            assert b"trusted_hosts" in received
            assert b"x-request-id" in received
        for status in (421, 200):
            target = f"http://{'evil.test' if status == 421 else 'localhost'}/v1/models"
            assert answer(server, "GET", target, "Host: localhost")[0] == status
        assert answer(server, "GET", "/v1/models")[0] == 421
        assert answer(server, "GET", "/v1/models", "Host: a", "Host: localhost")[0] == 400
        for path in ("/health", "/ready", "http://10.1.2.3/health"):
            assert answer(server, "GET", path, "Host: 10.1.2.3:8000")[0] == 200
            assert answer(server, "GET", path)[0] == 200


def test_with_keys_any_host_is_answered_by_default(tokenizer: Tokenizer) -> None:
    keys = ApiKeys.of(Settings(api_keys=("wk-3f9a5c0d77",)))
    with ScriptedServer.start(scripted(tokenizer), keys) as server:
        for host, key, status in (("evil.test", "", 401), ("evil.test", "wk-3f9a5c0d77", 200)):
            assert answer(server, "GET", "/v1/models", f"Host: {host}", f"Authorization: Bearer {key}")[0] == status
