"""Shards of a run: every n-th row of the input, answered by a process of its own, on a machine of its own.

Seeds follow the row's number, so a row's candidates are those of the whole run. A shard's folder is a run's, whose
manifest names the shard besides; `winnow.server.distill.gathering` makes one run of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from winnow.models.errors import RunError
from winnow.server.distill.files import write

KEY = "shard"
"""The manifest's entry, {index, of}, which a whole run has not."""
FINISHED = "shard.json"
"""The file of a finished shard: how many rows it has answered or found at fault, {rows}."""
MOST = 100_000


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """Shard `index`, from 1, `of` so many."""

    index: int
    of: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return the shard that a text like 3/8 names.

        Raises:
            RunError: it names none.
        """
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text, re.ASCII)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.index <= shard.of <= MOST:
            raise RunError(f"--shard is I/N, as in 3/8: shard I of N, counted from 1 to N; not {text!r}")
        return shard

    def has(self, line: int) -> bool:
        """Whether the input's row `line`, counted from 1, is in this shard: long rows side by side are spread."""
        return (line - self.index) % self.of == 0

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def of_manifest(manifest: Mapping[str, Any]) -> Shard | None:
    """Return the shard that a run's manifest names; None of a whole run, and of an entry edited by hand."""
    match manifest.get(KEY):
        case {"index": int(index), "of": int(of)} if 1 <= index <= of:
            return Shard(index, of)
    return None


def finish(folder: Path, rows: int) -> None:
    """Note that a shard has finished, with so many `rows` in its journal.

    Raises:
        RunError: the file cannot be written.
    """
    write(folder / FINISHED, orjson.dumps({"rows": rows}) + b"\n")


def finished_rows(folder: Path) -> int | None:
    """Return the number of rows that a shard had when it finished; None if it has not, or does not say."""
    try:
        rows = orjson.loads((folder / FINISHED).read_bytes())["rows"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return rows if isinstance(rows, int) else None
