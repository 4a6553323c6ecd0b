"""Models on other servers, as the settings name them: the way there, the key, and what their servers tell."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from winnow.clients.connection import read_api_key
from winnow.clients.errors import UnusableEnvironment
from winnow.clients.network import route_to
from winnow.models.cards import Card, read_card
from winnow.models.engines.hub import is_local
from winnow.models.engines.remote import Link, RemoteModel, discover, model_folder, require_folder
from winnow.models.engines.scorers import Scorer, card_of, remote_scorer, require_servable
from winnow.models.errors import CheckpointError, SettingsError
from winnow.server.settings import PolicySettings, RemotableSettings, RewardModelSettings, Settings

_REMOTE_ONLY = ("tokenizer", "model", "key", "key_file", "seconds", "start_seconds", "connections")
_KEY = re.compile(r"[!-~]{1,4096}")


def require_fitting(role: str, own: RewardModelSettings) -> None:
    """Check that the settings of the reward model `role` that are for another server fit its place.

    It finds what can be found without the server, so that nobody waits for one in vain.

    Raises:
        SettingsError: one has no effect there, or two exclude each other.
        CheckpointError: the card or the tokenizer's folder is not there, or the card is for the other kind of server.
    """
    _require_place(role, own)
    if own.is_remote and own.card:
        require_servable(role, read_card(own.card), own.addresses[0].kind)


def require_fitting_policy(own: PolicySettings) -> None:
    """Check that the policy's settings that are for another server fit its place.

    Raises:
        SettingsError, CheckpointError: see `require_fitting`.
    """
    _require_place("policy", own)
    if own.kind not in (None, own.runs_as):
        raise CheckpointError(f"policy.kind is {own.kind}, but its checkpoint is for {own.runs_as}; leave kind out")
    if own.runs_as == "chat" and own.template != "auto":
        raise SettingsError("policy.template is not for a chat endpoint, which has a template of its own")


def _require_place(role: str, own: RewardModelSettings | PolicySettings) -> None:
    given = [name for name in _REMOTE_ONLY if name in own.model_fields_set and getattr(own, name) is not None]
    if given and not own.is_remote:
        raise SettingsError(f"{role}.{given[0]} is for a model on another server, but its checkpoint is no URL")
    if own.key and own.key_file:
        raise SettingsError(f"{role}.key and {role}.key_file exclude each other")
    if not own.is_remote:
        return
    _key(role, own)
    kind = own.addresses[0].kind
    if own.kind not in (None, kind):
        raise CheckpointError(f"{role}.kind is {own.kind}, but its checkpoint is one for {kind}; leave kind out")
    if own.tokenizer and kind == "judge":
        raise SettingsError(f"{role}.tokenizer is not for a judge, whose own server tokenises")
    if own.tokenizer and is_local(own.tokenizer):
        require_folder(role, own.tokenizer)


def link_to(role: str, own: RemotableSettings) -> Link:
    """Return the way to the servers of the model `role`: directly to this machine, else as the environment says.

    Raises:
        SettingsError: its key, or a variable for proxies or certificates, cannot be used.
    """
    first, *others = own.addresses
    try:
        ways = {address: route_to(httpx.URL(address.url)).http_options() for address in own.addresses}
    except UnusableEnvironment as error:
        raise SettingsError(str(error)) from None
    return Link(
        first,
        _key(role, own),
        ways[first],
        own.seconds,
        own.start_seconds,
        own.connections,
        {address: ways[address] for address in others},
    )


def found_model(role: str, own: RemotableSettings) -> RemoteModel:
    """Return what the servers of the model `role` tell of it, once one answers.

    Raises:
        SettingsError: its key or the environment cannot be used.
        CheckpointError: it does not answer in time, or does not serve the model.
    """
    return discover(role, link_to(role, own), own.model)


def with_files(settings: Settings) -> Settings:
    """Return the settings with what the servers of a policy elsewhere tell: its name, and where its tokenizer is.

    Raises:
        SettingsError, CheckpointError: it cannot be served, or its tokenizer is not on this machine.
    """
    own = settings.policy
    require_fitting_policy(own)
    if not own.is_remote:
        return settings
    remote = found_model("policy", own)
    told = {"model": remote.name}
    if not own.tokenizer and own.runs_as != "chat":
        told["tokenizer"] = str(model_folder("policy", None, remote))
    return settings.model_copy(update={"policy": own.model_copy(update=told)})


def found_policy(own: PolicySettings) -> tuple[RemoteModel, Path]:
    """Return what the servers of the policy tell of it, and the folder with its files; they have been found before.

    Raises:
        SettingsError, CheckpointError: it cannot be served.
    """
    remote = found_model("policy", own)
    return remote, model_folder("policy", own.files, remote)


def found_scorer(role: str, own: RewardModelSettings) -> Scorer:
    """Return the reward model `role` of a server, with the card and the files that it is read by.

    Raises:
        SettingsError, CheckpointError: it cannot be served.
    """
    require_fitting(role, own)
    return remote_scorer(role, found_model(role, own), own.card, own.tokenizer, own.scale)


def card_of_settings(role: str, own: RewardModelSettings) -> Card | None:
    """Return the card that is given or found for the reward model `role`; None if one would be made of its config.

    Raises:
        SettingsError, CheckpointError: the card, the config or the server cannot be read.
    """
    if not own.is_remote:
        return card_of(own.checkpoint, own.card)
    found = found_scorer(role, own)
    return None if found.is_derived else found.card


def _key(role: str, own: RemotableSettings) -> str | None:
    try:
        key = own.key.get_secret_value() if own.key else read_api_key(own.key_file) if own.key_file else None
    except ValueError as error:
        raise SettingsError(f"{role}.key_file: {error}") from None
    if key is not None and not _KEY.fullmatch(key):
        raise SettingsError(f"{role}.key: a key is printable ASCII characters without spaces")
    return key
