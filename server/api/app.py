"""The ASGI application: every route behind the request middleware."""

from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from winnow.server.api import completions, errors, operations, rewards, tokens
from winnow.server.api.auth import ApiKeys
from winnow.server.api.documentation import documented
from winnow.server.api.metrics import Metrics
from winnow.server.api.middleware import RequestMiddleware
from winnow.server.api.unknown_routes import explained
from winnow.server.service import Service


def create_app(service: Service, keys: ApiKeys | None = None) -> FastAPI:
    """Return the application that serves `service`, whose engines run and are warmed up, to the holders of `keys`."""
    keys = keys or ApiKeys()
    app = FastAPI(title="Winnow", version=version("winnow-llm"), docs_url=None, redoc_url=None, redirect_slashes=False)
    metrics = Metrics(service)
    routers = (
        completions.routes(service, metrics),
        rewards.routes(service, metrics),
        tokens.routes(service),
        operations.model_routes(service),
        operations.routes(service, metrics),
    )
    for router in routers:
        app.include_router(router)
    _answer_unknown(app, [route for router in routers for route in router.routes if isinstance(route, APIRoute)])
    app.add_middleware(RequestMiddleware, service=service, keys=keys, metrics=metrics)
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
