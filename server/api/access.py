"""The roles that routes need: every route names them, and a route that names none would let in nobody with a key."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from winnow.models.errors import RoleMissing
from winnow.server.api.auth import ROLES, Caller, Role

Needed = frozenset[Role]
"""Roles of which a caller needs one."""
NEEDED = "x-winnow-roles"
"""The key under which a route keeps the roles that it needs, which `/openapi.json` shows."""


def needs(*roles: Role) -> dict[str, list[str]]:
    """Return a route's `openapi_extra` that lets in callers with one of `roles`."""
    return {NEEDED: list(roles)}


class Access:
    """The roles of the routes in `routers`: those of the router, unless a route has its own."""

    def __init__(self, routers: Iterable[tuple[APIRouter, Iterable[Role]]]) -> None:
        self._routes: list[tuple[BaseRoute, Needed]] = []
        for router, roles in routers:
            for route in router.routes:
                if isinstance(route, APIRoute):
                    extra = route.openapi_extra = {**needs(*roles), **(route.openapi_extra or {})}
                    self._routes.append((route, frozenset(extra[NEEDED])))

    def require(self, route: BaseRoute, *roles: Role) -> None:
        """Let only callers with one of `roles` use a route that is in no router."""
        self._routes.append((route, frozenset(roles)))

    def check(self, scope: Scope, caller: Caller) -> None:
        """Check that a caller may use the route of a request; a path without a route is for everyone to be told so.

        Raises:
            RoleMissing: the route needs a role that the caller does not have.
        """
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        for route, needed in self._routes:
            if route.matches(asked)[0] is Match.FULL:
                if not needed & caller.roles:
                    wanted = " or ".join(role for role in ROLES if role in needed)
                    raise RoleMissing(f"this needs an API key with the role {wanted}")
                return
