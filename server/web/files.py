"""The page's files and the headers that they are sent with; no HTTP framework.

The page is static: no template, no build step, nothing of a request in it. So its files are public, also on a server
with keys, and the policy below can forbid everything but the page's own files and the server's own API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
PREFIX = "/page/"
"""The path of every file but the page itself, which is at `/`."""
MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",  # kept, but asked about before each use: an upgrade shows at once
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page: its bytes, its media type, and the strong entity tag of its bytes."""

    body: bytes
    media_type: str
    etag: str

    def is_known(self, if_none_match: str | None) -> bool:
        """Whether the client's `If-None-Match` names this file's bytes (RFC 9110, section 13.1.2: weakly compared)."""
        tags = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
        return self.etag in tags or "*" in tags


def page_files() -> dict[str, PageFile]:
    """Return the page's files by their path on the server."""
    return {
        "/" if path.name == INDEX else f"{PREFIX}{path.name}": _read(path)
        for path in sorted(FOLDER.iterdir())
        if path.suffix in MEDIA_TYPES
    }


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(body, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
