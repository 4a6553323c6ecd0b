"""Reads the settings from their sources; every mistake is one line that names the setting."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from winnow.models.errors import SettingsError
from winnow.server.settings.engines import ENGINES
from winnow.server.settings.sources import ALIASES, DELIMITER, PREFIX, variables
from winnow.server.settings.tree import Settings

DEFAULT_FILE = Path("winnow.toml")


def load(file: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; `flags` that are None were not given. Without `file`, `winnow.toml` is read if there is one.

    Raises:
        SettingsError: an unknown key, a value out of range, or a file that cannot be read.
    """
    path = file or (DEFAULT_FILE if os.path.lexists(DEFAULT_FILE) else None)
    _check_environment()
    given = {name: value for name, value in flags.items() if value is not None}
    source = type("_Settings", (Settings,), {"file": path})
    try:
        settings: Settings = source(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    return settings


def of_reward_model(role: str, **own: Any) -> Settings:
    """Return the defaults with one reward model's values, `own` of which None were not given; nothing else is read.

    Raises:
        SettingsError: a value is out of range.
    """
    values: dict[str, Any] = {role: {name: value for name, value in own.items() if value is not None}}
    try:
        return _OfCaller(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


class _OfCaller(Settings):
    """Settings that a caller gives whole: no file and no environment."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the caller's values alone."""
        return (init_settings,)


def _check_environment() -> None:
    for variable in sorted(variables()):
        name = variable.removeprefix(PREFIX).lower().replace(DELIMITER, ".")
        if variable.startswith(PREFIX) and name not in _names():
            raise SettingsError(f"environment variable {variable}: {_unknown(name)}")


def _explain(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return _unknown(name)
    if problem["type"] == "model_type":
        wanted = "a checkpoint, or a table of its settings" if name in ENGINES else "a number, or a range such as 4-16"
        return f"{name}: {wanted}"
    flat = next((alias for alias, targets in ALIASES.items() if name in targets and alias not in ENGINES), None)
    shown = f"{name} ({flat})" if flat else name or "settings"
    return f"{shown}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, _names(), n=1, cutoff=0)
    return f"unknown setting {name!r}; the nearest is {nearest[0]!r}"


def _names() -> list[str]:
    """Return every name of a setting: flat ones, and nested ones with a dot."""
    nested = (
        f"{engine}.{field}" for engine in ENGINES for field in type(Settings.model_fields[engine].default).model_fields
    )
    return [*Settings.model_fields, *ALIASES, *nested]
