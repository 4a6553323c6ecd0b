"""The ASGI application: every route behind the request middleware."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from winnow.server.api import annotation, completions, errors, kept, operations, rewards, stored, tokens
from winnow.server.api.access import Access
from winnow.server.api.auth import ROLES, ApiKeys, Role
from winnow.server.api.documentation import documented
from winnow.server.api.metrics import Metrics
from winnow.server.api.middleware import RequestMiddleware
from winnow.server.api.operations import Exposition
from winnow.server.api.unknown_routes import explained
from winnow.server.service import Service
from winnow.server.web.files import page_files
from winnow.server.web.routes import routes as page_routes


def create_app(
    service: Service,
    keys: ApiKeys | None = None,
    metrics: Metrics | None = None,
    exposition: Exposition | None = None,
) -> FastAPI:
    """Return the application that serves `service`, whose engines run and are warmed up, to the holders of `keys`.

    Its page of metrics shows `metrics`, unless an `exposition` returns another.
    """
    keys = keys or ApiKeys()
    app = FastAPI(title="Winnow", version=version("winnow-llm"), docs_url=None, redoc_url=None, redirect_slashes=False)
    metrics = metrics or Metrics(service)
    routers: list[tuple[APIRouter, Sequence[Role]]] = [
        (completions.routes(service, metrics), ["use"]),
        (stored.routes(service), ["use", "operate"]),
        (kept.routes(service), ["operate"]),
        (annotation.routes(service), ["annotate"]),
        (rewards.routes(service, metrics), ["use"]),
        (tokens.routes(service), ["use"]),
        (operations.model_routes(service), ["use"]),
        (operations.routes(service, metrics, exposition), ["use", "operate"]),
        (operations.caller_routes(), ROLES),
    ]
    access = Access(routers)
    for route in app.routes:  # FastAPI's own, the document: its examples name the model, which annotators are not told
        access.require(route, "use", "operate")
    for router, _ in routers:
        app.include_router(router)
    _answer_unknown(app, [route for router, _ in routers for route in router.routes if isinstance(route, APIRoute)])
    page = page_files() if service.settings.playground else {}
    if page:
        app.include_router(page_routes(page))
    app.add_middleware(RequestMiddleware, service=service, keys=keys, access=access, metrics=metrics, page=page)
    app.openapi = documented(app.openapi, service.settings, has_keys=bool(keys))  # type: ignore[method-assign]
    return app


def _answer_unknown(app: FastAPI, routes: list[APIRoute]) -> None:
    """Answer requests that match no route."""
    served = {route.path_format: sorted(route.methods) for route in routes} | {str(app.openapi_url): ["GET"]}

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = explained(error, request.scope["path"], served)
        return errors.response(error, request.scope)

    app.add_exception_handler(HTTPException, answer)
