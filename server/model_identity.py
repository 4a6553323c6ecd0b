"""The identity of the models: what decides their rewards, the same for a server and for an offline run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.checkpoint import fingerprint
from winnow.models.engines.hub import is_local
from winnow.models.engines.scorers import card_of, engine_kind
from winnow.server.engine_options import precision
from winnow.server.remote_models import found_model, found_scorer
from winnow.server.settings import RewardModelSettings, Settings

_DECIDES_REWARDS = ("sha256", "template", "template_sha256")
"""Parts of a model's identity that, beside its card, decide rewards; not its place, nor what decides last bits."""


def models_fingerprint(settings: Settings, template: ChatTemplate) -> str:
    """Return the fingerprint of the settings' models, which a table of gains belongs to.

    All weights are read, about a second for each GiB: call it once, and not in the event loop.

    Raises:
        CheckpointError: a model is missing.
    """
    found = fingerprint_of(model_identities(settings, template), calibration_settings(settings))
    assert found, "models of these settings have an identity"
    return found


def fingerprint_of(models: Mapping[str, Mapping[str, Any]], calibration: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of models by their identities and `calibration_settings`, as a run's manifest has both.

    None of those behind a server, which does not tell what they are. The same models have it under other names and in
    other precision, with any engine, and whatever is asked of them: temperature, K, limits.
    """
    if not models or not all("root" in model or model.get("sha256") for model in models.values()):
        return None
    parts = {role: _decisive(model) for role, model in models.items()}
    scales = {name: calibration.get(name) for name in _CALIBRATION}
    content = json.dumps({"models": parts, "calibration": scales}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _decisive(model: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: model[key] for key in _DECIDES_REWARDS if model.get(key) is not None}
    if card := model.get("card"):
        found["card"] = card["sha256"]
    # Of the weights behind a server nothing is known but their names.
    return {**found, "id": model["id"], "root": model["root"]} if "root" in model else found


_CALIBRATION = tuple(f"{role}_{name}" for role in ("safety", "helpfulness") for name in ("scale", "bias"))


def calibration_settings(settings: Settings) -> dict[str, float | None]:
    """Return the scales and biases that replace those of the reward models' cards; None where the card's hold."""
    values = {"safety": settings.safety, "helpfulness": settings.helpfulness}
    return {f"{role}_{name}": getattr(own, name) for role, own in values.items() for name in ("scale", "bias")}


def model_identities(settings: Settings, policy: ChatTemplate) -> dict[str, Any]:
    """Return each model's identity, and the kind, template, precision and context that its engine works with.

    The policy is `served_as` the name that a server with these settings would give it. All weights are read, about a
    second for each GiB.

    Raises:
        CheckpointError: a model is missing.
    """
    remote = {name: _on_server(name, own) for name, own in settings.reward_models.items() if own.is_remote}
    if settings.policy.is_remote:
        remote["policy"] = _policy_on_server(settings, policy)
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
    is_judge = scorer.kind == "judge"
    return {
        "id": scorer.remote.name,
        "root": _place(scorer.remote.root),
        "sha256": None if is_judge else fingerprint(str(scorer.folder)),
        "kind": scorer.kind,
        "card": None if scorer.is_derived else {"name": scorer.card.name, "sha256": scorer.card.sha256},
        "context": own.context or scorer.remote.context,
    }


def _policy_on_server(settings: Settings, template: ChatTemplate) -> dict[str, Any]:
    """Return the identity of a policy on another server; see `_on_server`."""
    own = settings.policy
    found = found_model("policy", own)
    return {
        "served_as": settings.model_name,
        "id": found.name,
        "root": _place(found.root),
        "sha256": None if own.runs_as == "chat" else fingerprint(own.files),
        "kind": own.runs_as,
        **_template(template),
        "context": own.context or found.context,
    }


def _place(root: str | None) -> str | None:
    return Path(root).name if root and is_local(root) else root


def _policy(settings: Settings, template: ChatTemplate) -> dict[str, Any]:
    kind = settings.policy.runs_as
    return {"kind": kind, **_template(template), "dtype": precision(settings, settings.policy)}


def _reward_model(settings: Settings, name: str) -> dict[str, Any]:
    """Return what runs a reward model and how, and its card, which decides how it reads a conversation."""
    own = settings.reward_models[name]
    card = card_of(own.checkpoint, own.card)
    shown = {"name": card.name, "sha256": card.sha256} if card else None
    kind = engine_kind(own.checkpoint, card)
    return {"kind": kind, "card": shown, "dtype": precision(settings, own, kind=kind)}


def _template(template: ChatTemplate) -> dict[str, str]:
    return {"template": template.name, **({"template_sha256": template.digest} if template.digest else {})}
