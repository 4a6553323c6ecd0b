"""Files of prompts that are labelled harmful or harmless: JSON Lines, or CSV with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from winnow.clients.text_files import read_text
from winnow.models.errors import SettingsError

COLUMNS = ("prompt", "harmful")
_TRUTHS = {"true": True, "false": False}
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A user's message, whether it asks for something harmful, and the line of the file on which it begins."""

    text: str
    is_harmful: bool
    line: int


def read_labelled(path: Path) -> list[LabelledPrompt]:
    """Return the prompts of a file. It is JSON Lines if it begins with `{`, else CSV; other keys are ignored.

    Raises:
        SettingsError: it cannot be read, has no prompt, or a row has not both; the message names the line.
    """
    try:
        text = read_text(path)
    except ValueError as error:
        raise SettingsError(f"prompts: {error}") from None
    rows = _json_rows if text.lstrip().startswith("{") else _csv_rows
    prompts = []
    for line, prompt, harmful in rows(text, path):
        if not isinstance(prompt, str) or not prompt.strip():
            raise _refusal(path, line, "prompt must be a text that is not empty")
        if not isinstance(harmful, bool):
            raise _refusal(path, line, "harmful must be true or false")
        prompts.append(LabelledPrompt(prompt, harmful, line))
    if not prompts:
        raise SettingsError(f"prompts: {path} holds no prompts")
    return prompts


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, object, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise _refusal(path, number, "not JSON") from None
        if not isinstance(row, dict):
            raise _refusal(path, number, 'not a JSON object such as {"prompt": "Hello", "harmful": false}')
        yield number, row.get("prompt"), row.get("harmful")


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, object, object]]:
    header_line = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header_line.count), strict=True)
    line = 1
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in COLUMNS if header.count(name) != 1]:
            raise _refusal(path, 1, f"the header must have one column {' and one '.join(missing)}")
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                row = dict(zip(header, cells, strict=False))
                yield line, row.get("prompt"), _TRUTHS.get(row.get("harmful", "").strip().lower())
    except csv.Error:
        raise _refusal(path, line, "not a row of CSV; is a quote not closed?") from None


def _refusal(path: Path, line: int, reason: str) -> SettingsError:
    return SettingsError(f"prompts: {path}, line {line}: {reason}")
