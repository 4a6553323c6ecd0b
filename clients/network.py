"""The way to a server as the environment describes it: proxies and certificates. No IO but reading certificates.

The variables are those of curl and httpx: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` in either case,
`SSL_CERT_FILE` and `SSL_CERT_DIR`. httpx reads all of them whatever the address, and raises whatever it meets. Here
only what the address needs is read: loopback addresses are always reached directly, and certificates are loaded for
https only. No message shows a proxy's user name or password.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

import httpx

from winnow.clients.errors import UnusableEnvironment

DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback", "localhost.localdomain")
PROXY_FORM = "http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with special characters as in %40"

_PLACE = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Route:
    """The way to `address`: through `proxy`, which the environment variable `variable` names, or directly."""

    address: httpx.URL
    proxy: httpx.Proxy | None = None
    variable: str = ""

    @property
    def shown(self) -> str:
        """The proxy in words, without its user name and password."""
        assert self.proxy
        url = self.proxy.url
        return f"the proxy {url.scheme}://{url.netloc.decode()} ({self.variable})"

    @property
    def remedy(self) -> str:
        """Advice about a proxy that does not work."""
        return _remedy(self.variable, self.address)

    def http_options(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients.

        Raises:
            UnusableEnvironment: the certificates that https needs cannot be loaded.
        """
        # Without certificates nothing would be trusted; no http address needs any.
        verify = _certificates() if self.address.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return {"trust_env": False, "proxy": self.proxy, "verify": verify}


def parse_address(text: str) -> httpx.URL:
    """Return an address that a connection can be opened to.

    Raises:
        ValueError: it is malformed; the message does not repeat it.
    """
    try:
        text.encode()
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
        host.encode("idna")  # as the system's resolver does
    except httpx.InvalidURL as error:
        raise ValueError("malformed" if "@" in text else str(error)) from None  # it might repeat a password
    except UnicodeError:
        raise ValueError("the host is not a name that can be looked up") from None
    if "%" in host and ":" not in host:  # httpx has escaped a blank or the like
        raise ValueError("the host is not a name that can be looked up")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ValueError("the port is not a number from 1 to 65535")
    return url


def route_to(address: httpx.URL) -> Route:
    """Return the way to `address` by the environment's variables; the lower-case one of a name wins, as in curl.

    Raises:
        UnusableEnvironment: the proxy for this address is malformed, or of a kind that is not supported.
    """
    if is_this_machine(address.host):
        return Route(address)
    proxies = getproxies()
    kind = address.scheme if proxies.get(address.scheme) else "all"
    named = proxies.get(kind)
    if not named or any(_covers(entry, address) for entry in re.split(r"[,\s]+", proxies.get("no", ""))):
        return Route(address)
    names = sorted((name for name in os.environ if name.lower() == f"{kind}_proxy"), reverse=True)  # lower case first
    variable = names[0] if names else f"the system's {kind} proxy"
    return Route(address, _proxy(named, variable, address), variable)


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address or name, or the unspecified address, which reaches this machine."""
    name = host.lower().removesuffix(".")
    if is_loopback_name(name):
        return True
    address = _ip_address(name)
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def is_loopback_name(name: str) -> bool:
    """Whether a name, in lower case and without a final dot, is this machine's own.

    Resolvers and browsers keep `localhost` and names below it on the machine (RFC 6761).
    """
    return name in LOOPBACK_NAMES or name.endswith(".localhost")


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1 and the like, as the system reads them
    except (OSError, ValueError):
        return None


def _covers(entry: str, address: httpx.URL) -> bool:
    """Whether an entry of NO_PROXY covers an address: a domain, an address or network, each also with a port, or *.

    As in httpx, `example.org` covers its subdomains too, and `.example.org` only these. What cannot be read covers
    nothing.
    """
    scheme, _, place = entry.lower().rpartition("://")
    if place == "*":
        return True
    found = _PLACE.fullmatch(place)
    own = _ip_address(address.host)
    if scheme not in ("", "all", address.scheme) or not place:
        return False
    try:
        network = ipaddress.ip_network(place.strip("[]"), strict=False)
    except ValueError:
        if not found or (found[2] and int(found[2]) != (address.port or DEFAULT_PORTS[address.scheme])):
            return False
        name = found[1].strip("[]").removeprefix("*").removesuffix(".")
        hosts = (host.lower().removesuffix(".") for host in (address.host, address.raw_host.decode()))
        suffix = name if name.startswith(".") else f".{name}"
        return bool(name) and any(host == name or host.endswith(suffix) for host in hosts)
    return own is not None and own in network


def _proxy(named: str, variable: str, address: httpx.URL) -> httpx.Proxy:
    remedy = _remedy(variable, address)
    try:
        url = parse_address(named if "://" in named else f"http://{named}")
    except ValueError:
        raise UnusableEnvironment(f"{variable} is not the address of a proxy ({PROXY_FORM}): {remedy}") from None
    if not url.host or b"@" in url.raw_path or "@" in url.fragment:  # a password with a /, ? or # in it
        raise UnusableEnvironment(f"{variable} is not the address of a proxy ({PROXY_FORM}): {remedy}")
    if url.scheme in ("socks5", "socks5h") and not find_spec("socksio"):
        raise UnusableEnvironment(
            f"{variable} names a SOCKS proxy, which needs pip install 'httpx[socks]'; without it {remedy}"
        )
    if url.scheme not in ("http", "https", "socks5", "socks5h"):
        raise UnusableEnvironment(f"{variable} names a proxy that is neither http, https nor socks5: {remedy}")
    return httpx.Proxy(url, ssl_context=_proxy_certificates() if url.scheme == "https" else None)


def _remedy(variable: str, address: httpx.URL) -> str:
    return f"correct or unset {variable}, or list {address.host} in NO_PROXY"


def _certificates() -> ssl.SSLContext:
    """Return the trusted certificates: of `SSL_CERT_FILE`, else `SSL_CERT_DIR`, else those that come with httpx."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return _default_certificates()
    _require_key_log()
    variable = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
    try:
        # OpenSSL passes over folders that are not there, and reads several with colons between them.
        if folder and not file and not any(map(os.path.isdir, folder.split(os.pathsep))):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    except ssl.SSLError:
        reason = "holds no certificate in PEM form"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except ValueError:
        reason = "is not a path"
    raise UnusableEnvironment(f"{variable} names certificates for https, but {reason}: correct or unset {variable}")


def _default_certificates() -> ssl.SSLContext:
    _require_key_log()
    return httpx.create_ssl_context(trust_env=False)


def _proxy_certificates() -> ssl.SSLContext:
    """Return the certificates for a proxy that is itself reached by https: the system's, and those of httpx."""
    certificates = _default_certificates()
    certificates.load_default_certs()  # reads SSL_CERT_FILE too, and passes over what it cannot read
    return certificates


def _require_key_log() -> None:
    """Check that the file of `SSLKEYLOGFILE`, which Python opens with every set of certificates, can be written."""
    if path := os.environ.get("SSLKEYLOGFILE"):
        try:
            open(path, "ab").close()
        except (OSError, ValueError):
            raise UnusableEnvironment(
                "SSLKEYLOGFILE names a file that cannot be written: correct or unset SSLKEYLOGFILE"
            ) from None
