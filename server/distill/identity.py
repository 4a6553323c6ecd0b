"""The identity of a run, as its manifest has it: what decides its answers, apart from the input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from winnow.clients import AsyncClient, WinnowClientError
from winnow.clients.schema import ModelCard, Version
from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.checkpoint import fingerprint
from winnow.models.engines.environment import engine_version, runs_on_gpu
from winnow.models.engines.hub import is_local
from winnow.models.engines.scorers import card_of, engine_kind
from winnow.models.errors import RunError
from winnow.models.safety_classifier import COMPLIANCE, REFUSAL, ClassifierName
from winnow.server.distill.options import RunOptions
from winnow.server.distill.records import FORMAT
from winnow.server.engine_options import execution, precision
from winnow.server.remote_models import found_scorer
from winnow.server.settings import RewardModelSettings, Settings

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
        "models": _remote_models(served, template) if served else _models(settings, template),
        "settings": {
            "candidates": choices.candidates,
            "temperatures": choices.temperatures,
            "sweep": choices.sweep,
            "top_p": choices.top_p,
            "max_tokens": choices.max_tokens,
            "combiner": choices.combiner,
            "empty_last": settings.empty_last,
            "seed": choices.seed,
            "safety_classifier": settings.safety_classifier,
            **_CLASSIFIER_SETTINGS[settings.safety_classifier](settings),
            "tags": settings.tags,
            "merge_turns": settings.merge_turns,
            **({} if served else _engine_settings(settings)),
        },
        "recipe": {
            "context_distillation": choices.context_distillation,
            "ghost_attention": choices.ghost_attention,
            "sha256": recipe_digest if choices.context_distillation or choices.ghost_attention else None,
        },
    }


def _models(settings: Settings, policy: ChatTemplate) -> dict[str, Any]:
    """Return each model's identity, and the kind, template, precision and context that its engine works with.

    The policy is `served_as` the name that a server with these settings would give it.
    """
    remote = {name: _on_server(name, own) for name, own in settings.reward_models.items() if own.is_remote}
    local = {
        name: {
            **({"served_as": settings.model_name} if name == "policy" else {}),
            "id": Path(checkpoint).name if is_local(checkpoint) else checkpoint,
            "sha256": fingerprint(checkpoint),
            **(_policy(settings, policy) if name == "policy" else _reward_model(settings, name)),
            "context": settings.engines[name].context or settings.context,
        }
        for name, checkpoint in settings.checkpoints.items()
        if name not in remote
    }
    return {name: {**local, **remote}[name] for name in settings.checkpoints}


def _on_server(role: str, own: RewardModelSettings) -> dict[str, Any]:
    """Return the identity of a reward model on another server: what that tells, the files here, and the card.

    The address is no part of it: a server may move. A server that serves other weights under the same names is not
    noticed.
    """
    scorer = found_scorer(role, own)
    assert scorer.remote
    root = scorer.remote.root
    is_judge = scorer.kind == "judge"
    return {
        "id": scorer.remote.name,
        "root": Path(root).name if root and is_local(root) else root,
        "sha256": None if is_judge else fingerprint(str(scorer.folder)),
        "kind": scorer.kind,
        "card": None if scorer.is_derived else {"name": scorer.card.name, "sha256": scorer.card.sha256},
        "context": own.context or scorer.remote.context,
    }


def _policy(settings: Settings, template: ChatTemplate) -> dict[str, Any]:
    kind = settings.policy.kind
    return {"kind": kind, **_template(template), "dtype": precision(settings, settings.policy)}


def _reward_model(settings: Settings, name: str) -> dict[str, Any]:
    """Return what runs a reward model and how, and its card, which decides how it reads a conversation."""
    own = settings.reward_models[name]
    card = card_of(own.checkpoint, own.card)
    shown = {"name": card.name, "sha256": card.sha256} if card else None
    kind = engine_kind(own.checkpoint, card)
    return {"kind": kind, "card": shown, "dtype": precision(settings, own, kind=kind)}


def _engine_settings(settings: Settings) -> dict[str, Any]:
    """Return the other settings that decide the bits of a score or a token."""
    how = execution(settings, "policy", on_gpu=runs_on_gpu())
    return {
        "eager": {"eager": True, "compiled": False}.get(how, how),
        "safety_scale": settings.safety.scale,
        "safety_bias": settings.safety.bias,
        "helpfulness_scale": settings.helpfulness.scale,
        "helpfulness_bias": settings.helpfulness.bias,
        "engine": engine_version(),
    }


def _template(template: ChatTemplate) -> dict[str, str]:
    return {"template": template.name, **({"template_sha256": template.digest} if template.digest else {})}


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
