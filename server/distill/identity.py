"""The identity of a run, as its manifest has it: what decides its answers, apart from the input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, TypeVar

from winnow.clients import AsyncClient, WinnowClientError
from winnow.clients.schema import ModelCard, Version
from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.environment import engine_version, runs_on_gpu
from winnow.models.errors import RunError
from winnow.models.safety_classifier import COMPLIANCE, REFUSAL, ClassifierName
from winnow.models.types import CombinerName
from winnow.server.distill.options import RunOptions
from winnow.server.distill.records import FORMAT
from winnow.server.engine_options import execution
from winnow.server.model_identity import calibration_settings, model_identities
from winnow.server.settings import Settings

T = TypeVar("T")
UNKNOWN = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""Stands for a template that only the server knows: any dialog that asks something."""
_CLASSIFIER_SETTINGS: Mapping[ClassifierName, Callable[[Settings], dict[str, Any]]] = {
    "patterns": lambda settings: {"safety_patterns": settings.safety_patterns},
    "probe": lambda settings: {
        "safety_probe_margin": settings.safety.probe_margin,
        "safety_probe_answers": [REFUSAL, COMPLIANCE],
    },
    "guard": lambda settings: {},
}
"""Settings that decide the tags of each safety classifier, apart from the models."""


def identity(
    options: RunOptions, settings: Settings, template: ChatTemplate, recipe_digest: str, served: ModelCard | None = None
) -> dict[str, Any]:
    """Return the manifest of a run, on the `served` model or on the settings' models; its `input` is to be filled in.

    Raises:
        CheckpointError: a model is missing.
    """
    choices = options.choices
    return {
        "format": FORMAT,
        "winnow": version("winnow-llm"),
        "input": None,
        "models": _remote_models(served, template) if served else model_identities(settings, template),
        "settings": {
            "candidates": choices.candidates,
            "temperatures": choices.temperatures,
            "sweep": choices.sweep,
            "top_p": choices.top_p,
            "max_tokens": choices.max_tokens,
            "combiner": choices.combiner,
            **({"adaptive": asdict(choices.waves)} if choices.waves else {}),
            **({"budget": asdict(choices.budget)} if choices.budget else {}),
            "empty_last": settings.empty_last,
            "seed": choices.seed,
            **_prompt_settings(settings),
            **({} if served else _engine_settings(settings)),
        },
        "recipe": {
            "context_distillation": choices.context_distillation,
            "ghost_attention": choices.ghost_attention,
            "sha256": recipe_digest if choices.context_distillation or choices.ghost_attention else None,
        },
    }


def served_identity(settings: Settings, template: ChatTemplate, combiner: CombinerName) -> dict[str, Any]:
    """Return the manifest of the answers that a server with these settings gives.

    What each request chooses for itself, K and temperature among it, is no part of it.

    Raises:
        CheckpointError: a model is missing.
    """
    return {
        "format": FORMAT,
        "winnow": version("winnow-llm"),
        "input": {"name": f"{settings.model_name}, as served"},
        "models": model_identities(settings, template),
        "settings": {
            "combiner": combiner,
            "empty_last": settings.empty_last,
            **_prompt_settings(settings),
            **_engine_settings(settings),
        },
    }


def _prompt_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide how a dialog is read."""
    return {
        "safety_classifier": settings.safety_classifier,
        **_CLASSIFIER_SETTINGS[settings.safety_classifier](settings),
        "tags": settings.tags,
        "merge_turns": settings.merge_turns,
    }


def _engine_settings(settings: Settings) -> dict[str, Any]:
    """Return the other settings that decide the bits of a score or a token."""
    how = execution(settings, "policy", on_gpu=runs_on_gpu())
    return {
        "eager": {"eager": True, "compiled": False}.get(how, how),
        **calibration_settings(settings),
        **({} if settings.tensor_parallel == 1 else {"tensor_parallel": settings.tensor_parallel}),
        "engine": engine_version(),
    }


def _remote_models(served: ModelCard, template: ChatTemplate) -> dict[str, Any]:
    """Return the name of the served model; a server reveals neither hashes nor its reward models."""
    # Not named where it is Llama 2's, as in runs that began before servers told it.
    own = {} if template.name == "llama2" else {"template": template.name}
    return {"server": {"id": served.id, "sha256": None, **own}}


def served_model(options: RunOptions) -> ModelCard:
    """Return the model that the server serves.

    Raises:
        RunError: the server does not answer.
    """

    async def model(client: AsyncClient) -> ModelCard:
        return (await client.models())[0]

    return _asked(options, model)


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


def chat_template(settings: Settings, served: ModelCard | None) -> ChatTemplate:
    """Return the policy's chat template; of a `served` model the settings', if they name one.

    Otherwise only the name of its template is known, where it is none of Winnow's own: dialogs are checked by the
    server, when they are sent.

    Raises:
        CheckpointError: the settings' template cannot be used.
    """
    if served and settings.policy.template == "auto" and served.chat_template not in TEMPLATES:
        return JinjaTemplate(UNKNOWN, served.chat_template, settings.merge_turns)
    return settings.chat_template
