"""The end of a run: its exports, what it teaches, what is printed of it, and the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from winnow.server.distill import gains
from winnow.server.distill.export import ExportOptions, Format
from winnow.server.distill.export.formats import export
from winnow.server.distill.export.writers import write_errors
from winnow.server.distill.shards import Shard

INCOMPLETE = 3
"""Exit status of a finished run with lines that have no answers; `errors.jsonl` lists them with the reasons."""


def conclude(out: Path, formats: tuple[Format, ...], *, as_json: bool, shard: Shard | None = None) -> int:
    """Export the run in `out`, print the outcome, and return the exit status.

    A shard teaches nothing: the whole run does, once it is gathered. Its exit status is 0 also with lines that have no
    answers, because schedulers take others for a job that failed; gathering returns 3.
    """
    errors = write_errors(out)
    written = export(out, formats, ExportOptions()) if formats else []
    table = None if shard else gains.write_gains(out)
    if as_json:
        files = {item.path.name: item.rows for item in written}
        body = {"event": "done", "errors": errors, "files": files | ({gains.NAME: table.prompts} if table else {})}
        sys.stdout.buffer.write(orjson.dumps(body | ({"shard": str(shard)} if shard else {})) + b"\n")
    else:
        for item in written:
            print(f"{item.rows:>9,}  {item.path}")
        if table:
            print(f"{table.prompts:>9,}  {out / gains.NAME}: {gains.remark(table)}")
        if errors:
            print(f"{errors:>9,}  {out / 'errors.jsonl'}: lines without answers, and why")
        if shard:
            print(f"shard {shard} is done; once all are, make one run of them: winnow distill gather DIR… --out DIR")
    return INCOMPLETE if errors and not shard else 0
