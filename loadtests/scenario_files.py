"""Finds and reads scenarios: those shipped with Winnow by name, a user's own by path.

An unknown key is an error that names the nearest valid one.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from winnow.clients.text_files import read_text
from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario import ARRIVALS, Message, Scenario

SHIPPED = files("winnow.loadtests").joinpath("scenarios")


def names() -> list[str]:
    """Return the names of the shipped scenarios."""
    return sorted(item.name.removesuffix(".toml") for item in SHIPPED.iterdir() if item.name.endswith(".toml"))


def text(name: str) -> str:
    """Return the TOML of a scenario, given by its name, or by its path, which ends in .toml.

    Raises:
        ScenarioError: there is no such scenario, or it cannot be read.
    """
    path = Path(name)
    if path.suffix != ".toml" and name not in names():
        raise ScenarioError(
            f"there is no scenario {name!r}; there are {', '.join(names())}, and files that end in .toml"
        )
    if path.suffix != ".toml":
        return SHIPPED.joinpath(f"{name}.toml").read_text("utf-8")
    try:
        return read_text(path)
    except ValueError as error:
        raise ScenarioError(str(error)) from None


def load(name: str, changes: Mapping[str, Any] | None = None) -> Scenario:
    """Return a scenario by name or path; `changes` replace its keys, a change to None removes one.

    Raises:
        ScenarioError: there is no such scenario, or a key or value is invalid; the message says which.
    """
    try:
        keys = tomllib.loads(text(name))
    except RecursionError:
        raise ScenarioError(f"{name} is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise ScenarioError(f"{name} is not TOML: {error}") from None
    path = Path(name)
    if path.suffix == ".toml":
        keys = _with_paths_from(path.parent, {"name": path.stem, **keys})
    return read({key: value for key, value in {**keys, **(changes or {})}.items() if value is not None}, name)


def _with_paths_from(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Return the keys with relative paths resolved against the scenario's folder."""
    if isinstance(keys.get("prompts_file"), str):
        keys["prompts_file"] = str(folder / keys["prompts_file"])
    if isinstance(keys.get("arrivals"), dict) and isinstance(keys["arrivals"].get("file"), str):
        keys["arrivals"] = {**keys["arrivals"], "file": str(folder / keys["arrivals"]["file"])}
    return keys


def read(keys: Mapping[str, Any], source: str) -> Scenario:
    """Return a scenario from its keys; `source` is its name in error messages.

    Raises:
        ScenarioError: a key or value is invalid.
    """
    try:
        return Scenario.model_validate_json(json.dumps(keys, default=str))
    except ValidationError as error:
        raise ScenarioError(f"{source}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    place = [part for part in problem["loc"] if not isinstance(part, str) or part not in ARRIVALS]
    where = ".".join(map(str, place))
    if problem["type"] != "extra_forbidden":
        return ": ".join(filter(None, (where, problem["msg"].removeprefix("Value error, "))))
    nearest = difflib.get_close_matches(str(place[-1]), _siblings(problem["loc"]), n=1, cutoff=0)
    return f"unknown key {where!r}; the nearest is {nearest[0]!r}"


def _siblings(location: Sequence[int | str]) -> list[str]:
    """Return the valid keys at the place of an unknown one."""
    parent: type[BaseModel] = Scenario
    if location[0] == "arrivals":
        parent = ARRIVALS[str(location[1])]
    elif location[0] == "prompts":
        parent = Message
    return list(parent.model_fields)
