"""Reading of data files: each row is used, or is a bad row with its place and the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from winnow.models.errors import BadLine, RunError
from winnow.server.distill.reader import OTHERWISE, STDIN, Source, open_source
from winnow.server.distill.rows import row_object
from winnow.server.rm.rows import HARMLESS_KEYS, HELPFUL_KEYS, PAIR_KEYS, PKU, SAFE_KEYS, UNSAFE_KEYS, Body

SHOWN = 10
"""Bad rows that are listed."""
LABELS = {*SAFE_KEYS, *UNSAFE_KEYS, *HARMLESS_KEYS, *PAIR_KEYS, *HELPFUL_KEYS, *PKU[2:]}
NUMBERS = {
    *("score_chosen", "score_rejected", "margin", "margin_small", "margin_large"),
    *("better_response_id", "safer_response_id", "rating"),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row, or an answer of one, that could not be used, and why."""

    file: str
    line: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"file": self.file, "line": self.line, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Place(Generic[T]):
    """Something that a row holds, and where that row is."""

    file: str
    line: int
    item: T

    def bad(self, reason: str) -> BadRow:
        """Return the bad row that it turned out to be."""
        return BadRow(self.file, self.line, reason)


@dataclass(frozen=True, slots=True)
class Data(Generic[T]):
    """The items that the rows of some files hold, in order, and the rows that could not be read. `rows` counts both."""

    names: tuple[str, ...]
    items: list[Place[T]] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    rows: int = 0

    @property
    def name(self) -> str:
        """The files' names, without folders."""
        return ", ".join(self.names)


def read(files: Sequence[str], parse: Callable[[Body], Iterable[T]]) -> Data[T]:
    """Return what `parse` makes of each row of `files`; it raises `BadLine` for a row that cannot be used.

    Raises:
        RunError: a file cannot be read, or none of the rows can be used.
    """
    items: list[Place[T]] = []
    bad: list[BadRow] = []
    names, rows = [], 0
    for path in files:
        if path == STDIN:
            raise RunError("--data: standard input is read once only; name a file")
        source = _opened(path)
        names.append(source.name)
        for row in source.rows(all_columns=True):
            rows += 1
            try:
                items += [Place(row.file, row.file_line, item) for item in parse(typed(row_object(row.content)))]
            except BadLine as problem:
                bad.append(BadRow(row.file, row.file_line, str(problem)))
    if not rows:
        raise RunError(f"{', '.join(names)}: there are no rows")
    if not items:
        first = f"; line {bad[0].line} of {bad[0].file}: {bad[0].reason}" if bad else ""
        raise RunError(f"none of the {rows} rows of {', '.join(names)} can be used{first}")
    return Data(tuple(names), items, bad, rows)


def _opened(path: str) -> Source:
    try:
        return open_source(path, Path())
    except RunError as error:
        raise RunError(str(error).removesuffix(OTHERWISE)) from None


def typed(body: Body) -> Body:
    """Return a row whose labels and numbers are no texts: a CSV file has nothing else."""
    return {
        name: _PLAIN.get(value.strip().lower(), value) if isinstance(value, str) and name in LABELS
        else _number(value) if isinstance(value, str) and name in NUMBERS
        else value
        for name, value in body.items()
    }  # fmt: skip


_PLAIN = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def _number(value: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def summary(bad: Sequence[BadRow], rows: int) -> list[str]:
    """Return lines for people that count the bad rows, of `rows`, and list the first; none if there are none."""
    if not bad:
        return []
    lines = [f"Of {rows:,} rows, could not be used, or answers of them: {len(bad):,}"]
    lines += [f"  {row.file}, line {row.line}: {row.reason}" for row in bad[:SHOWN]]
    return lines + ([f"  and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else [])
