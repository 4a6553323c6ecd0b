"""Wire bodies as checked requests, rendered for the engines."""

from __future__ import annotations

import math

from winnow.clients.schema import ChatRequest, TextRequest
from winnow.models.errors import UnknownModel
from winnow.server.pipeline.rendering import RenderedRequest
from winnow.server.pipeline.request import Messages, RawPrompt, RequestOptions, messages_of, resolve
from winnow.server.service import Service


async def parse(body: ChatRequest | TextRequest, service: Service, arrived: float) -> RenderedRequest:
    """Check `body`, which arrived at that instant of `time.monotonic`, and render its prompt.

    A full server refuses it before its prompt is rendered.

    Raises:
        RequestError: the caller has to change something.
        Overloaded: there is no room for so many candidates.
    """
    require_model(body.model, service)
    request = resolve(_prompt(body), RequestOptions.of(body), service.defaults, arrived)
    service.admission.require_room(request.least_at_once, deadline=request.early_stopping.deadline or math.inf)
    return await service.renderer.render(request)


def require_model(model: str, service: Service) -> None:
    """Check that `model` is the served one.

    Raises:
        UnknownModel: it is not.
    """
    if model != service.settings.model_name and not service.settings.accept_any_model:
        raise UnknownModel(
            f"the model does not exist here; this server serves {service.settings.model_name!r}", "model"
        )


def _prompt(body: ChatRequest | TextRequest) -> Messages | RawPrompt:
    if isinstance(body, ChatRequest):
        return messages_of(body.messages)
    return RawPrompt(body.prompt if isinstance(body.prompt, str) else tuple(body.prompt))
