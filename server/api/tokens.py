"""`POST /tokenize` and `POST /detokenize`: texts as the policy's token ids, and back."""

import asyncio

from fastapi import APIRouter, Response

from winnow.clients.schema import MAX_PROMPT_TOKENS, Detokenized, DetokenizeRequest, TokenizeRequest, Tokens
from winnow.models.errors import RequestError
from winnow.server.api.documentation import BODY, REFUSED
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.request_parsing import require_model
from winnow.server.pipeline.request import messages_of
from winnow.server.service import Service


def routes(service: Service) -> APIRouter:
    """Return the two routes."""
    router = APIRouter(
        route_class=route_class(service.settings.max_body_bytes), strict_content_type=False, responses=REFUSED | BODY
    )
    tokenizer = service.tokenizer

    @router.post("/tokenize", response_model=Tokens)
    async def tokenize(body: TokenizeRequest) -> Response:
        """Count and list the tokens of a text, or of a dialog as the template renders it."""
        if body.model is not None:
            require_model(body.model, service)
        if body.messages is not None:
            prompt = await service.renderer.render_dialog(messages_of(body.messages), False, body.merge_turns)
            ids = list(prompt.token_ids)
        else:
            ids = await _encode(body.prompt or "", service, with_bos=body.add_special_tokens is not False)

        def respond() -> Response:
            names = list(map(tokenizer.token_name, ids)) if body.return_token_strs else None
            return json_response(Tokens(count=len(ids), max_model_len=service.context, tokens=ids, token_strs=names))

        return await asyncio.to_thread(respond)

    @router.post("/detokenize", response_model=Detokenized)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """Return the text of token ids."""
        if body.model is not None:
            require_model(body.model, service)
        service.renderer.require_tokens(body.tokens, "tokens")
        return json_response(Detokenized(prompt=await asyncio.to_thread(tokenizer.decode, body.tokens)))

    return router


async def _encode(text: str, service: Service, *, with_bos: bool) -> list[int]:
    """Return the token ids of a text.

    Raises:
        RequestError: there are more tokens than a request may contain.
    """
    start = list(service.tokenizer.text_start) if with_bos else []
    if service.tokenizer.fewest_tokens(text) <= MAX_PROMPT_TOKENS:
        ids = start + await service.renderer.encode(text)
        if len(ids) <= MAX_PROMPT_TOKENS:
            return ids
    raise RequestError(f"the text has more than {MAX_PROMPT_TOKENS} tokens", "prompt")
