"""The hosts that a server answers to, and absolute request targets.

A web page whose own name is made to resolve to this machine (DNS rebinding) is of the same origin as the server to its
browser, but its requests show the page's name as their host. A server without keys therefore answers to hosts that no
page can have: loopback ones, the address it was told to listen on, and those that its operator trusts.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from starlette.types import Scope

from winnow.models.errors import UntrustedHost
from winnow.server.settings import Settings
from winnow.server.settings.hosts import ANY, address_of, is_loopback, split_authority

_ABSOLUTE = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)


class TrustedHosts:
    """The rule for `Host` headers: `trusted_hosts`, and without keys also loopback hosts and the server's own."""

    def __init__(self, settings: Settings, *, has_keys: bool) -> None:
        self._has_keys = has_keys
        trusted = settings.trusted_hosts
        self._all = ANY in trusted or (has_keys and not trusted)
        self._networks = [ipaddress.ip_network(entry) for entry in trusted if "/" in entry]
        self._domains = tuple(entry.removeprefix("*") for entry in trusted if entry.startswith("*."))
        self._names = {entry for entry in trusted if not entry.startswith("*") and "/" not in entry}
        if not has_keys:
            own = settings.host.lower()
            self._names.add(str(address_of(own) or own))

    def check(self, scope: Scope, target: str | None) -> None:
        """Check the host of the request's target, if that has one, and its `Host` header.

        Raises:
            UntrustedHost: one of them is not a host of this server.
        """
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self._all or (len(hosts) == 1 and all(map(self._trusts, hosts if target is None else [*hosts, target]))):
            return
        if self._has_keys:
            raise UntrustedHost("this server does not answer to this Host header; see its setting trusted_hosts")
        raise UntrustedHost(
            "without API keys this server answers only to loopback hosts (localhost, 127.0.0.1, [::1]); name this host "
            "in its setting trusted_hosts, or set API keys"
        )

    def _trusts(self, authority: str) -> bool:
        parts = split_authority(authority)
        if parts is None:
            return False
        host, address = parts[0], address_of(parts[0])
        if address is not None:
            return (
                str(address) in self._names
                or any(address in network for network in self._networks)
                or (not self._has_keys and address.is_loopback)
            )
        return host in self._names or host.endswith(self._domains) or (not self._has_keys and is_loopback(host))


def to_origin_form(scope: Scope) -> str | None:
    """Reduce an absolute target (`GET http://host/path`) to its path, and return its `host[:port]`; else return None.

    Clients of a proxy send such targets, and every server has to accept them (RFC 9112, section 3.2.2).
    """
    found = _ABSOLUTE.fullmatch(scope["raw_path"])
    if not found:
        return None
    raw_path = found[2] or b"/"
    scope["raw_path"], scope["path"] = raw_path, unquote(raw_path.decode("latin-1"))
    return found[1].decode("latin-1")
