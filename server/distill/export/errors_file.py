"""`errors.jsonl`: the input lines that have no answers, and why."""

from __future__ import annotations

from pathlib import Path

from winnow.server.distill import journal
from winnow.server.distill.export.columns import json_line
from winnow.server.distill.files import whole
from winnow.server.distill.records import Problem

NAME = "errors.jsonl"


def write_errors(folder: Path) -> int:
    """Write a run's `errors.jsonl` from its journal, in the order of the input; how many lines it has.

    A line has `line` (over the whole input, from 1), `file` and `file_line`, `id` (or null) and `error` {`kind`, `code`,
    `message`}; the kind is `input` (the line is at fault) or `failed` (every candidate failed).

    Raises:
        RunError: there is no journal, or the file cannot be written.
    """
    count = 0
    with whole(folder / NAME) as file:
        for entry in journal.read(folder):
            if isinstance(entry, Problem):
                error = {"kind": entry.kind, "code": entry.code, "message": entry.message}
                where = {"line": entry.line, "file": entry.file, "file_line": entry.file_line, "id": entry.id}
                file.write(json_line({**where, "error": error}))
                count += 1
    return count
