"""Text files with one item per line: traces and prompts.

Only "\\n" and "\\r\\n" end a line: U+2028, U+0085 and others of that kind are part of a prompt. A byte order mark at
the beginning is none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from winnow.clients.text_files import read_text
from winnow.loadtests.errors import ScenarioError

T = TypeVar("T")


def read_lines(path: Path, kind: str, item: str, parse: Callable[[str], T]) -> list[T]:
    """Return `parse(line)` for every line of a file that is not blank; `kind` and `item` are for error messages.

    Raises:
        ScenarioError: the file cannot be read or has no items, or `parse` raised ValueError; the message has
            the line number.
    """
    try:
        lines = read_text(path).split("\n")
    except ValueError as error:
        raise ScenarioError(f"{kind} {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse(line.removesuffix("\r")))
            except ValueError as error:
                raise ScenarioError(f"{kind} {path}, line {number}: {error}") from None
    if not found:
        raise ScenarioError(f"{kind} {path} has no {item}")
    return found
