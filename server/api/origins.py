"""The web pages that may use a server: cross-origin requests are refused unless their origin is named (CORS).

Browsers tell where a request comes from in `Origin` and `Sec-Fetch-Site`; other clients send neither. A page of the
same site but another origin, such as another port of localhost, counts as foreign: its browser would not let it read
the answer, and other programs of this machine may serve it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.types import Scope

from winnow.clients.network import DEFAULT_PORTS
from winnow.models.errors import ForeignOrigin
from winnow.server.settings.hosts import ANY, origin, split_authority

Headers = Sequence[tuple[bytes, bytes]]

EXPOSED = (
    "x-request-id",
    "openai-processing-ms",
    "server-timing",
    "retry-after",
    "x-should-retry",
    "x-winnow-reduced-by",
)
"""Headers of an answer that a page may read."""
MAX_AGE = 600
"""Seconds for which a browser may keep the answer to a preflight request."""
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,4096}")


class Origins:
    """The origins named in `cors_origins`."""

    def __init__(self, named: Sequence[str]) -> None:
        self._all = ANY in named
        self._exact = frozenset(entry for entry in named if "*" not in entry)
        self._domains = [tuple(entry.split("*")) for entry in named if "//*." in entry]

    def check(self, scope: Scope) -> None:
        """Check that no page of a foreign origin sent the request.

        Raises:
            ForeignOrigin: one did.
        """
        headers: Headers = scope["headers"]
        given = _values(headers, b"origin")
        if given and self._names(given):
            return
        sites = _values(headers, b"sec-fetch-site")
        if all(site in ("same-origin", "none") for site in sites) and (not given or _is_own(given, headers)):
            return
        raise ForeignOrigin(
            "a web page of another origin may not use this server; its operator can name the page's origin in the "
            "setting cors_origins"
        )

    def is_preflight(self, scope: Scope) -> bool:
        """Whether a browser asks what a page of a named origin may send."""
        headers: Headers = scope["headers"]
        is_asking = scope["method"] == "OPTIONS" and bool(_values(headers, b"access-control-request-method"))
        return is_asking and self._names(_values(headers, b"origin"))

    def preflight_headers(self, scope: Scope) -> dict[str, str]:
        """Return the answer's headers to a preflight request: any route's methods, and the headers it asked for."""
        headers: Headers = scope["headers"]
        asked = ", ".join(_values(headers, b"access-control-request-headers"))
        answer = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
            "Access-Control-Allow-Headers": asked if _TOKENS.fullmatch(asked) else "authorization, content-type",
            "Access-Control-Max-Age": str(MAX_AGE),
        }
        if _values(headers, b"access-control-request-private-network") == ["true"]:
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer needs for the pages of named origins; none if no origin is named.

        Keys travel in `Authorization`, which a page sets itself, so that credentials are not allowed.
        """
        if not (self._all or self._exact or self._domains):
            return []
        given = _values(scope["headers"], b"origin")
        vary = [] if self._all else [(b"vary", b"Origin")]
        if not self._names(given):
            return vary
        allowed = b"*" if self._all else given[0].encode("latin-1")
        exposed = ", ".join(EXPOSED).encode()
        return [*vary, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", exposed)]

    def _names(self, given: Sequence[str]) -> bool:
        if self._all or len(given) != 1:
            return self._all and len(given) > 0
        try:
            page = origin(given[0])
        except ValueError:
            return False
        is_below = any(page.startswith(start) and page.endswith(end) for start, end in self._domains)
        return page in self._exact or (is_below and "*" not in page)


def is_navigation(scope: Scope) -> bool:
    """Whether someone follows a link to a page, in a window of its own; the page with the link reads nothing."""
    headers: Headers = scope["headers"]
    goes = [_values(headers, name) for name in (b"sec-fetch-mode", b"sec-fetch-dest")]
    return scope["method"] in ("GET", "HEAD") and goes == [["navigate"], ["document"]]


def _values(headers: Headers, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _is_own(given: Sequence[str], headers: Headers) -> bool:
    """Whether the origin is the server's own: its host and port are those of the `Host` header."""
    hosts = _values(headers, b"host")
    scheme, _, authority = given[0].partition("://")
    if len(given) != 1 or len(hosts) != 1 or scheme not in DEFAULT_PORTS:
        return False
    page, own = split_authority(authority), split_authority(hosts[0])
    if page is None or own is None:
        return False
    port = DEFAULT_PORTS[scheme]
    return (page[0], page[1] or port) == (own[0], own[1] or port)
