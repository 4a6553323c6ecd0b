"""`POST /v1/rewards`: scores given answers to a dialog."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from winnow.clients.schema import Rating, Rewards, RewardsRequest
from winnow.models.combiner import rank
from winnow.models.errors import CandidateFailed, ClientGone, NoScoredCandidate, PromptTooLong, WinnowError, root_cause
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.types import Candidate, CombinerName, Prompt, Reward, ScoredCandidate
from winnow.server.aio import interrupted_by
from winnow.server.api import responses
from winnow.server.api.completions import disconnected, in_turn
from winnow.server.api.documentation import ANSWER, BODY, REFUSED
from winnow.server.api.logging import request_log
from winnow.server.api.metrics import Metrics
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.request_parsing import require_model
from winnow.server.pipeline.best_of_n import tagged
from winnow.server.pipeline.request import messages_of
from winnow.server.service import Service


def routes(service: Service, metrics: Metrics) -> APIRouter:
    """Return the route."""
    router = APIRouter(
        route_class=route_class(service.settings.max_body_bytes),
        strict_content_type=False,
        responses=REFUSED | BODY | ANSWER,
    )

    @router.post("/v1/rewards", response_model=Rewards)
    async def rewards(body: RewardsRequest, request: Request) -> Response:
        """Score given answers to a dialog."""
        require_model(body.model, service)
        service.require_engines()
        places = max(1, min(len(body.answers), service.settings.max_candidates_in_flight))
        service.admission.require_room(places)
        rendered = await service.renderer.render_dialog(messages_of(body.messages), body.merge_turns)
        prompt, classifier = service.renderer.tagging(rendered, body.is_safety, "messages")
        answers = [service.template.neutralise(answer) for answer in body.answers]
        await asyncio.to_thread(_require_fitting, answers, prompt, service)
        await service.renderer.require_scorable(prompt, "answers", answers)
        ticket = service.admission.enter(request_log(request.scope).flow, places, len(prompt))
        async with interrupted_by(disconnected(request), ClientGone), in_turn(service, ticket):
            with metrics.candidates_in_flight(lambda: places):
                scored = await _rate(service, prompt, classifier, answers, places)
        ratings = _ranked(answers, scored, body.combiner or service.combiner, service.settings.empty_last)
        return json_response(Rewards(model=service.settings.model_name, rewards=ratings))

    return router


def _require_fitting(answers: Sequence[str], prompt: Prompt, service: Service) -> None:
    """Check that each answer fits the context after `prompt`."""
    tokenizer, context = service.tokenizer, service.context
    for index, answer in enumerate(answers):
        fewest = tokenizer.fewest_tokens(answer)
        tokens = f"at least {fewest}"
        if len(prompt) + fewest <= context:
            exact = len(tokenizer.encode_answer(prompt, answer))
            if len(prompt) + exact <= context:
                continue
            tokens = str(exact)
        raise PromptTooLong(
            f"answers[{index}]: {len(prompt)} prompt and {tokens} answer tokens exceed the context of {context}",
            "answers",
        )


def _ranked(
    answers: Sequence[str], rewards: Sequence[Reward], combiner: CombinerName, empty_last: bool
) -> list[Rating]:
    """Return the ratings of the answers in their order, ranked as candidates are."""
    pairs = zip(answers, rewards, strict=True)
    scored = [ScoredCandidate(Candidate(index, text, "stop", 0), reward) for index, (text, reward) in enumerate(pairs)]
    ranking = rank(scored, combiner, empty_last=empty_last)
    places = {position: place for place, position in enumerate(ranking)}
    return [responses.rating(item, places[position]) for position, item in enumerate(scored)]


async def _rate(
    service: Service, prompt: Prompt, classifier: SafetyClassifier | None, answers: Sequence[str], places: int
) -> list[Reward]:
    """Score the answers, `places` at a time, once the classifier has tagged the prompt."""
    free = asyncio.Semaphore(places)

    async def rate(answer: str) -> Reward:
        async with free:
            return await service.pipeline.rate(ready, answer)

    try:
        ready = await tagged(prompt, classifier)
        async with asyncio.TaskGroup() as group:
            ratings = [group.create_task(rate(answer)) for answer in answers]
    except* WinnowError as failures:
        error = root_cause(failures)
        raise NoScoredCandidate(str(error)) if isinstance(error, CandidateFailed) else error from None
    return [rating.result() for rating in ratings]
