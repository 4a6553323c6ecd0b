"""Figures as JSON can say them."""

from __future__ import annotations

import json
from typing import Any


def to_json(values: dict[str, Any]) -> str:
    """Return figures as JSON for people and programs; null for what is not known (NaN)."""
    return json.dumps(_plain(values), indent=2)


def _plain(value: object) -> object:
    """Return a value as JSON can say it: no NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
