"""The identity of a run, as its manifest has it: what decides its answers, apart from the input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from winnow.clients import AsyncClient, WinnowClientError
from winnow.clients.schema import Version
from winnow.models.engines.checkpoint import fingerprint, is_local
from winnow.models.engines.environment import engine_version, runs_on_gpu
from winnow.models.engines.scorers import card_of
from winnow.models.errors import RunError
from winnow.server.distill.options import RunOptions
from winnow.server.distill.records import FORMAT
from winnow.server.engine_options import execution, precision
from winnow.server.settings import Settings

T = TypeVar("T")


def identity(options: RunOptions, settings: Settings, recipe_digest: str) -> dict[str, Any]:
    """Return the run's manifest; its `input` is None, to be filled in.

    Raises:
        CheckpointError: a model is missing.
        RunError: the server does not answer.
    """
    choices = options.choices
    return {
        "format": FORMAT,
        "winnow": version("winnow-llm"),
        "input": None,
        "models": _remote_models(options) if options.server else _models(settings),
        "settings": {
            "candidates": choices.candidates,
            "temperatures": choices.temperatures,
            "sweep": choices.sweep,
            "top_p": choices.top_p,
            "max_tokens": choices.max_tokens,
            "combiner": choices.combiner,
            "empty_last": settings.empty_last,
            "seed": choices.seed,
            "safety_patterns": settings.safety_patterns,
            "tags": settings.tags,
            "merge_turns": settings.merge_turns,
            **({} if options.server else _engine_settings(settings)),
        },
        "recipe": {
            "context_distillation": choices.context_distillation,
            "ghost_attention": choices.ghost_attention,
            "sha256": recipe_digest if choices.context_distillation or choices.ghost_attention else None,
        },
    }


def _models(settings: Settings) -> dict[str, Any]:
    """Return each model's identity, and the kind, template, precision and context that its engine works with.

    The policy is `served_as` the name that a server with these settings would give it.
    """
    return {
        name: {
            **({"served_as": settings.model_name} if name == "policy" else {}),
            "id": Path(checkpoint).name if is_local(checkpoint) else checkpoint,
            "sha256": fingerprint(checkpoint),
            "kind": settings.engines[name].kind,
            **_reading(settings, name),
            "dtype": precision(settings, settings.engines[name]),
            "context": settings.engines[name].context or settings.context,
        }
        for name, checkpoint in settings.checkpoints.items()
    }


def _reading(settings: Settings, name: str) -> dict[str, Any]:
    """Return what decides how a model reads a conversation: the policy's template, a reward model's card."""
    if name == "policy":
        return {"template": settings.policy.template}
    own = settings.reward_models[name]
    card = card_of(own.checkpoint, own.card)
    return {"card": {"name": card.name, "sha256": card.sha256} if card else None}


def _engine_settings(settings: Settings) -> dict[str, Any]:
    """Return the other settings that decide the bits of a score or a token."""
    how = execution(settings, "policy", on_gpu=runs_on_gpu())
    return {
        "eager": True if how == "eager" else how,
        "safety_scale": settings.safety.scale,
        "safety_bias": settings.safety.bias,
        "helpfulness_scale": settings.helpfulness.scale,
        "helpfulness_bias": settings.helpfulness.bias,
        "engine": engine_version(),
    }


def _remote_models(options: RunOptions) -> dict[str, Any]:
    """Return the name of the served model; a server reveals neither hashes nor its reward models."""

    async def name(client: AsyncClient) -> str:
        return (await client.models())[0].id

    return {"server": {"id": _asked(options, name), "sha256": None}}


def served_version(options: RunOptions) -> Version:
    """Return what the run's server says of itself.

    Raises:
        RunError: it does not answer.
    """
    return _asked(options, AsyncClient.version)


def _asked(options: RunOptions, question: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
    """Return the server's answer to `question`; a server that is no Winnow gets one line."""

    async def ask() -> T:
        async with options.client(retries=1) as client:
            return await question(client)

    try:
        return asyncio.run(ask())
    except WinnowClientError as error:
        raise RunError(f"no Winnow answers at {options.server}: {error}") from None
