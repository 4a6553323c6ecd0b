"""A row as an object: its keys that have a value, whatever the file was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from winnow.models.errors import BadLine
from winnow.server.distill.lines import BOM, not_utf8

_NOT_A_NUMBER = re.compile(r"NaN|Infinity")


def row_object(content: bytes | Mapping[str, Any] | BadLine) -> dict[str, Any]:
    """Return the keys of a row that have a value: tables fill absent ones with nulls.

    Raises:
        BadLine: the row cannot be read, or is no object.
    """
    if isinstance(content, BadLine):
        raise content
    body = _parse(content) if isinstance(content, bytes) else content
    if not isinstance(body, Mapping):
        raise BadLine("not_an_object", 'the row is not a JSON object; each row is one, as in {"prompt": "…"}')
    return {key: value for key, value in body.items() if value is not None}


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(BOM):
            raise BadLine("invalid_json", "a byte order mark stands inside the file; remove it") from None
        try:
            line.decode()
        except UnicodeDecodeError:
            raise not_utf8() from None
        if number := _NOT_A_NUMBER.match(error.doc, error.pos):
            raise BadLine("invalid_json", f"{number[0]} is no value of JSON; write null") from None
        raise BadLine("invalid_json", f"the row is not JSON, at character {error.colno}: {error.msg}") from None
