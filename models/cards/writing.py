"""Cards as TOML text: one with a new calibration, all else as it was."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Mapping
from typing import Any

from winnow.models.cards.card import parse_card
from winnow.models.cards.evidence import CalibrationRecord

_OWN = ("scale", "bias", "calibrated", "calibration")


def with_calibration(text: str, source: str, scale: float, bias: float, record: CalibrationRecord) -> str:
    """Return the card `text` with another scale, bias and `[calibration]`; its comments are lost, no field is.

    Raises:
        CheckpointError: `text` is no card; `source` names it.
    """
    parse_card(text, source)
    values = {name: value for name, value in tomllib.loads(text).items() if name not in _OWN}
    values |= {"scale": scale, "bias": bias, "calibrated": True}
    values["calibration"] = record.model_dump(exclude_none=True)
    written = to_toml(values)
    assert tomllib.loads(written) == values
    parse_card(written, source)
    return written


def to_toml(values: Mapping[str, Any]) -> str:
    """Return a table as TOML: its plain values first, then its tables and lists of tables."""
    plain = {name: value for name, value in values.items() if not (isinstance(value, Mapping) or _is_tables(value))}
    lines = [f"{name} = {_value(value)}" for name, value in plain.items()]
    for name, value in values.items():
        if name in plain:
            continue
        head, tables = (f"[[{name}]]", value) if _is_tables(value) else (f"[{name}]", [value])
        for table in tables:
            lines += ["", head, *(f"{key} = {_value(item)}" for key, item in table.items())]
    return "\n".join(lines) + "\n"


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_value, value)) + "]"


def _text(text: str) -> str:
    """Return a basic string: JSON's escapes are TOML's, which also wants U+007F escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
