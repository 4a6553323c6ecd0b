"""Values of settings as people write them: lists as one text, ranges, patterns, hosts. Pure."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from winnow.clients.schema import AdaptiveOptions, CandidateRange
from winnow.server.settings.hosts import origin, trusted_host

T = TypeVar("T")
RecordRule = Literal["off", "opt_in", "all"]
"""The answers that are recorded: none, those that ask for it, or all but those that ask for the contrary."""
TABLE = re.compile(r"""\s*\{\s*["'}]""")
"""The beginning of a text that is meant as a JSON table, and of hardly any path or pattern."""
_BRACKETED_ADDRESS = re.compile(r"\s*\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]")


def _listed(value: object) -> object:
    """Return the list that a text stands for: a JSON list if it begins with [, else the text alone; none if blank."""
    if not isinstance(value, str):
        return value
    if TABLE.match(value):
        raise ValueError("""a list is wanted, not a table: write it as in ["one", "two"]""")
    if not value.lstrip().startswith("["):
        return [value] if value.strip() else []
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("""a text that begins with [ must be a JSON list, such as ["one", "two"]""") from None


def _split(value: object) -> object:
    """Return the list that a text stands for: JSON, or items between commas."""
    if not isinstance(value, str) or value.lstrip().startswith("[") or TABLE.match(value):
        return _listed(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _split_each(value: Any) -> Any:
    """Split each item at commas, too: flags may be given one by one or with commas. `[::1]` is an address."""
    items = [value] if isinstance(value, str) and _BRACKETED_ADDRESS.match(value) else _split(value)
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        return items
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _range(value: object) -> object:
    """Accept `16` for a fixed K, `4-16` for one that the load may shrink; in the file also `{min = 4, max = 16}`."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", value)
        if not found:
            raise ValueError(f"{value!r} is neither a number nor a range such as 4-16")
        return {"min": int(found[1]), "max": int(found[2] or found[1])}
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _adaptive(value: object) -> object:
    """Accept `reward=0.9`, `gain=0.002,start=4,step=4`, `off`, or JSON as in a request; in the file also a table."""
    if not isinstance(value, str):
        return value
    if value.strip() == "off":
        return None
    if value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{value!r} is not JSON") from None
    parts = dict(re.findall(r"\s*(start|step|reward|gain)\s*=\s*([0-9.eE+-]+)\s*(?:,|$)", value))
    try:
        numbers = {name: float(number) for name, number in parts.items()}
    except ValueError:
        numbers = {}
    if not numbers or len(numbers) != len(value.split(",")):
        raise ValueError(f"{value!r} is none of reward=0.9, gain=0.002,start=4,step=4, a JSON object, and off")
    stop = {name: numbers.pop(name) for name in ("reward", "gain") if name in numbers}
    return {**numbers, "stop": stop}


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


def _without_brackets(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


Address = Annotated[str, AfterValidator(_without_brackets)]
"""A name or an address; IPv6 with or without the brackets of a URL."""
KRange = Annotated[CandidateRange, NoDecode, BeforeValidator(_range)]
"""K, or the range that it may shrink in."""
Adaptive = Annotated[AdaptiveOptions | None, NoDecode, BeforeValidator(_adaptive)]
"""The waves in which candidates are drawn, or None to draw all K at once."""
TrustedHost = Annotated[str, AfterValidator(trusted_host)]
Origin = Annotated[str, AfterValidator(origin)]
Pattern = Annotated[str, AfterValidator(_compiles)]
Commas = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
"""A list that a text writes with commas, or as JSON."""
Names = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split_each)]
"""A list that may be written with commas anywhere."""
Texts = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_listed)]
"""A list whose items may have commas: a text is one item, or a JSON list."""
