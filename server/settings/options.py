"""The settings as the command line has them: one flag each, under its flat name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from winnow.server.settings.engines import ENGINES
from winnow.server.settings.sources import ALIASES
from winnow.server.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class Option:
    """A setting as the command line has it, under its flat name."""

    name: str
    annotation: Any
    description: str
    default: Any
    is_offline: bool
    decides_memory: bool


def options() -> Iterator[Option]:
    """Yield every setting that is a flag: the aliases of engine settings, and the settings that engines share.

    Secrets are no flags: a command line is there for every user of the machine to read.
    """
    for alias, targets in ALIASES.items():
        engine, _, name = targets[0].partition(".")
        field = type(Settings.model_fields[engine].default).model_fields[name]
        if _extra(field, "flag", True):
            yield _option(alias, field)
    for name, field in Settings.model_fields.items():
        if name not in ENGINES and _extra(field, "flag", True):
            yield _option(name, field)


def _option(name: str, field: FieldInfo) -> Option:
    return Option(
        name,
        field.annotation,
        field.description or "",
        field.default,
        is_offline=_extra(field, "offline", False),
        decides_memory=_extra(field, "memory", False),
    )


def _extra(field: FieldInfo, name: str, otherwise: bool) -> bool:
    extra = field.json_schema_extra
    return bool(extra.get(name, otherwise)) if isinstance(extra, dict) else otherwise
