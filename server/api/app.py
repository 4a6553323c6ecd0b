"""The ASGI application: every route behind the request middleware."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from winnow.server.api import completions, errors, operations, rewards, tokens
from winnow.server.api.auth import ApiKeys
from winnow.server.api.metrics import Metrics
from winnow.server.api.middleware import RequestMiddleware
from winnow.server.service import Service


def create_app(service: Service, keys: ApiKeys | None = None) -> FastAPI:
    """Return the application that serves `service`, whose engines run and are warmed up, to the holders of `keys`."""
    app = FastAPI(title="Winnow", version=version("winnow-llm"), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    metrics = Metrics(service)
    for router in (
        completions.routes(service, metrics),
        rewards.routes(service, metrics),
        tokens.routes(service),
        operations.model_routes(service),
        operations.routes(service, metrics),
    ):
        app.include_router(router)
    app.add_middleware(RequestMiddleware, service=service, keys=keys or ApiKeys(), metrics=metrics)
    app.openapi = _without_422(app)  # type: ignore[method-assign]
    return app


def _without_422(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return FastAPI's description of the routes without the 422 it adds by itself: an invalid body gets 400 here."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    return openapi


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown route, or with a wrong method."""
    return errors.response(error, request.scope)
