"""Host names and web origins in one spelling, as settings name them and requests show them. Pure.

Names are compared as text and never looked up: whoever controls a name decides what it resolves to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re

from winnow.clients.network import DEFAULT_PORTS, is_loopback_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
ANY = "*"
"""As a trusted host or an origin: all of them."""
MOST_SHOWN = 100
"""Characters of a wrong value that its error shows."""
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/@,?#\\%]+))(?::(\d{0,5}))?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.+?)/?")


def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Return host and port of `host[:port]`: lower case, without brackets or a final dot; None if it is malformed."""
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        return None
    six, name, port = found.groups()
    host = (six or name).lower().removesuffix(".")
    if not host or (six and address_of(six) is None):
        return None
    return host, int(port) if port else None


def address_of(host: str) -> Address | None:
    """Return the address that `host` spells, an IPv4 address inside IPv6 as IPv4; None if it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def is_loopback(host: str) -> bool:
    """Whether `host`, as `split_authority` spells it, is a loopback address or name.

    Unlike a client's address, a `Host` header of 0.0.0.0 is not: a web page may have it.
    """
    address = address_of(host)
    return is_loopback_name(host) if address is None else address.is_loopback


def shown(host: str) -> str:
    """Return `host` as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def trusted_host(text: str) -> str:
    """Return an entry of `trusted_hosts` in one spelling: a name, `*.a-domain`, an address, a network, or `*`.

    Raises:
        ValueError: it is something else, such as a URL or a name with a port.
    """
    if text.strip() == ANY:
        return ANY
    entry = text.strip().lower().removesuffix(".")
    bare = entry.strip("[]")
    with contextlib.suppress(ValueError):
        if "/" in bare:
            return str(ipaddress.ip_network(bare, strict=False))
        if address := address_of(bare):
            return str(address)
        if _NAME.fullmatch(entry):
            return entry
    raise ValueError(
        f"{text[:MOST_SHOWN]!r} is not a host; write a name or an address alone, without scheme and port, or "
        "*.example.org, 10.0.0.0/8, *"
    )


def origin(text: str) -> str:
    """Return a web page's origin, `scheme://host[:port]`, in one spelling; the host may be `*.a-domain`. Or `*`.

    Raises:
        ValueError: it is no origin.
    """
    text = text.strip()
    if text == ANY:
        return ANY
    found = _ORIGIN.fullmatch(text)
    parts = split_authority(found[2].removeprefix("*.")) if found else None
    if not found or parts is None or "*" in parts[0]:
        raise ValueError(
            f"{text[:MOST_SHOWN]!r} is not an origin; write it as in https://app.example.org, without a path, or *"
        )
    scheme, (host, port) = found[1].lower(), parts
    star = "*." if found[2].startswith("*.") else ""
    tail = "" if port in (None, DEFAULT_PORTS.get(scheme)) else f":{port}"
    return f"{scheme}://{star}{shown(host)}{tail}"
