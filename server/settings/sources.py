"""The sources of settings. Each replaces flat aliases by the nested names, so that sources override each other."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource

from winnow.clients.text_files import read_text
from winnow.models.errors import SettingsError
from winnow.server.settings.engines import ENGINES
from winnow.server.settings.service_links import service_links
from winnow.server.settings.values import TABLE

PREFIX = "WINNOW_"
DELIMITER = "__"
"""Between an engine and its setting in the environment: `WINNOW_SAFETY__DTYPE`."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "policy": ("policy.checkpoint",),
    "chat_template": ("policy.template",),
    "safety_rm": ("safety.checkpoint",),
    "helpfulness_rm": ("helpfulness.checkpoint",),
    "policy_memory": ("policy.memory",),
    "rm_memory": ("safety.memory", "helpfulness.memory"),
    "kv_cache_gib": ("policy.kv_cache_gib",),
    "rm_kv_cache_gib": ("safety.kv_cache_gib", "helpfulness.kv_cache_gib"),
    "safety_card": ("safety.card",),
    "helpfulness_card": ("helpfulness.card",),
    "policy_tokenizer": ("policy.tokenizer",),
    "safety_tokenizer": ("safety.tokenizer",),
    "helpfulness_tokenizer": ("helpfulness.tokenizer",),
    "policy_model": ("policy.model",),
    "safety_model": ("safety.model",),
    "helpfulness_model": ("helpfulness.model",),
    "policy_key": ("policy.key",),
    "safety_key": ("safety.key",),
    "helpfulness_key": ("helpfulness.key",),
    "policy_key_file": ("policy.key_file",),
    "safety_key_file": ("safety.key_file",),
    "helpfulness_key_file": ("helpfulness.key_file",),
    "safety_scale": ("safety.scale",),
    "safety_bias": ("safety.bias",),
    "safety_probe_margin": ("safety.probe_margin",),
    "helpfulness_scale": ("helpfulness.scale",),
    "helpfulness_bias": ("helpfulness.bias",),
}
"""Flat names of engine settings, each with the nested settings it stands for."""


def variables() -> dict[str, str]:
    """Return the environment's `WINNOW_…` variables that are settings, or mean to be."""
    ours = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    return {name: ours[name] for name in ours.keys() - service_links(ours)}


class Environment(EnvSettingsSource):
    """`WINNOW_…` variables: flat aliases, and nested names."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {name.lower(): value for name, value in variables().items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode JSON, or take another text in place of an engine's table as its checkpoint."""
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            if field_name not in ENGINES or TABLE.match(value):
                raise SettingsError(
                    f'environment variable {PREFIX}{field_name.upper()} is not JSON, such as {{"name": "value"}}'
                ) from None
            return {"checkpoint": value}
        return decoded if isinstance(decoded, dict) or field_name not in ENGINES else {"checkpoint": value}

    def __call__(self) -> dict[str, Any]:
        """Return the values that are set, nested."""
        given = {name: self.env_vars.get(f"{PREFIX}{name}".lower()) for name in ALIASES if name not in ENGINES}
        return nested({**super().__call__(), **{name: value for name, value in given.items() if value is not None}})


class File(InitSettingsSource):
    """A settings file, flat aliases and nested tables; None for no file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls, nested(_read_toml(path)) if path else {})


def _read_toml(path: Path) -> dict[str, Any]:
    """Return a file's values. It is read once: it may be a pipe, as of `--config <(…)`.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    if not os.path.exists(path):
        raise SettingsError(f"no such settings file: {path}")
    try:
        text = read_text(path)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError(f"{path} cannot be read as TOML: it is nested too deeply") from None
    except ValueError as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one source's values with every flat name replaced by what it stands for; nested names win.

    An engine's own name with a text instead of a table stands for its checkpoint.
    """
    found = {name: value for name, value in values.items() if name not in ALIASES or name in ENGINES}
    for engine in ENGINES:
        own = found.get(engine)
        if isinstance(own, str):
            found[engine] = {"checkpoint": own}
        elif isinstance(own, BaseModel):
            found[engine] = own.model_dump(exclude_unset=True)
    for alias in (name for name in ALIASES if name in values and name not in ENGINES):
        for engine, _, name in (target.partition(".") for target in ALIASES[alias]):
            own = found.get(engine, {})
            if isinstance(own, Mapping):
                found[engine] = {name: values[alias], **own}
    return found
