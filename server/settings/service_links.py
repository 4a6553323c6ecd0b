"""Variables that a container platform sets for its services, which begin like settings and are none.

For a Service whose name begins with `winnow`, Kubernetes gives every pod `WINNOW_PORT=tcp://10.0.0.1:8000`,
`WINNOW_SERVICE_HOST`, `WINNOW_PORT_8000_TCP_ADDR` and more; Docker's links do the same, with `WINNOW_NAME`,
`WINNOW_ENV_…` and, where ports follow each other, the first and the last of them. They are told from settings by the
form of name and value together, so that a misspelled setting is still found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from winnow.server.settings.hosts import address_of

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_PROTOCOL = "|".join(_PROTOCOLS)
_URL = re.compile(rf"(?:{_PROTOCOL})://\S+:\d+", re.IGNORECASE)
_PORT = re.compile(rf"(.+?)_PORT(?:_\d+_(?:{_PROTOCOL})(?:_START|_END)?)?")
_PART = re.compile(rf"(.+?)_PORT_\d+_(?:{_PROTOCOL})_(?:(ADDR|PROTO)|PORT(?:_START|_END)?)")
_HOST = re.compile(r"(.+)_SERVICE_HOST")
_NAME = re.compile(r"(.+)_NAME")
_CONTAINER = re.compile(r"/[^/]+/([^/]+)")
"""A container, and the name by which it knows the service: `/web/winnow`."""


def service_links(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the variables that describe services."""
    links = {name: service for name, value in environment.items() if (service := _service(name, value))}
    more = (name for name in environment for service in set(links.values()) if _belongs(name, service, environment))
    return frozenset((*links, *more))


def _service(name: str, value: str) -> str | None:
    """Return the service that a variable is about, if name and value tell by themselves that it is about one.

    These are `…_SERVICE_HOST` with an address, `…_PORT` and `…_PORT_8000_TCP` with a URL, the latter's parts, and
    Docker's `…_NAME` with the name of the same service.
    """
    if found := _HOST.fullmatch(name):
        return found[1] if _is_address(value) else None
    if (found := _PORT.fullmatch(name)) and _URL.fullmatch(value):
        return found[1]
    if found := _PART.fullmatch(name):
        fits = {"ADDR": _is_address(value), "PROTO": value.upper() in _PROTOCOLS, None: value.isdecimal()}
        return found[1] if fits[found[2]] else None
    if (found := _NAME.fullmatch(name)) and (container := _CONTAINER.fullmatch(value)):
        return found[1] if re.sub(r"[.-]", "_", container[1]).upper() == found[1] else None
    return None


def _belongs(name: str, service: str, environment: Mapping[str, str]) -> bool:
    """Whether a variable is one of those that only the others of its service tell from a setting."""
    value, rest = environment[name], name.removeprefix(service)
    if rest == name:
        return False
    if rest == "_SERVICE_PORT" or rest.startswith("_SERVICE_PORT_"):
        return value.isdecimal()
    container = environment.get(f"{service}_NAME", "")
    return (rest == "_NAME" or rest.startswith("_ENV_")) and _CONTAINER.fullmatch(container) is not None


def _is_address(value: str) -> bool:
    return address_of(value) is not None
