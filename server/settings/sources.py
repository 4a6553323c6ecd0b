"""The sources of settings, each with its flat aliases replaced by the nested names, so that sources can
override each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from winnow.server.settings.engines import ENGINES

PREFIX = "WINNOW_"
DELIMITER = "__"
"""Between an engine and its setting in the environment: `WINNOW_SAFETY__DTYPE`."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "policy": ("policy.checkpoint",),
    "safety_rm": ("safety.checkpoint",),
    "helpfulness_rm": ("helpfulness.checkpoint",),
    "policy_memory": ("policy.memory",),
    "rm_memory": ("safety.memory", "helpfulness.memory"),
    "kv_cache_gib": ("policy.kv_cache_gib",),
    "rm_kv_cache_gib": ("safety.kv_cache_gib", "helpfulness.kv_cache_gib"),
    "safety_scale": ("safety.scale",),
    "safety_bias": ("safety.bias",),
    "helpfulness_scale": ("helpfulness.scale",),
    "helpfulness_bias": ("helpfulness.bias",),
}
"""Flat names of engine settings: what each one sets."""


class Environment(EnvSettingsSource):
    """`WINNOW_…` variables, flat aliases and nested names; an engine's own name with a plain text is its checkpoint."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode JSON, or take a plain text in place of an engine's table as its checkpoint."""
        if field_name in ENGINES and not value.lstrip().startswith("{"):
            return {"checkpoint": value}
        return super().decode_complex_value(field_name, field, value)

    def __call__(self) -> dict[str, Any]:
        """Return the values that are set, nested."""
        given = {name: self.env_vars.get(f"{PREFIX}{name}".lower()) for name in ALIASES if name not in ENGINES}
        return nested({**super().__call__(), **{name: value for name, value in given.items() if value is not None}})


class File(TomlConfigSettingsSource):
    """The settings file, flat aliases and nested tables."""

    def __call__(self) -> dict[str, Any]:
        """Return the file's values, nested."""
        return nested(super().__call__())


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one source with every alias replaced by the settings it stands for; nested names
    come first.
    """
    nested = {name: value for name, value in values.items() if name not in ALIASES or not _is_alias(name, value)}
    for alias, targets in ALIASES.items():
        if alias in values and _is_alias(alias, values[alias]):
            for engine, _, name in (target.partition(".") for target in targets):
                own = nested.get(engine, {})
                if isinstance(own, BaseModel):
                    own = own.model_dump(exclude_unset=True)
                nested[engine] = {name: values[alias], **own} if isinstance(own, Mapping) else own
    return nested


def _is_alias(name: str, value: Any) -> bool:
    """Whether `name` is used as an alias: an engine's own name is one if it holds a checkpoint instead of a table."""
    return name not in ENGINES or isinstance(value, str)
