"""`winnow distill gather`: one run from its shards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from winnow.server.cli.distill import DISTILLED, AsJson, chosen_formats, format_option
from winnow.server.cli.options import one_line_errors


def gather(
    shards: Annotated[list[Path], typer.Argument(help="The folders of all shards of a run, in any order.")],
    out: Annotated[Path, typer.Option(help="Folder of the gathered run.")],
    formats: Annotated[list[str] | None, format_option(DISTILLED)] = None,
    json: AsJson = False,
) -> None:
    """Make one run from the folders of winnow distill --shard, with the files that a single run would have written.

    Every shard must be there once, finished, with one input, models, settings and recipe; the shards stay as they
    are. Exit status: as of winnow distill.
    """
    with one_line_errors():
        from winnow.server.distill.gathering import gather as run

        logging.basicConfig(format="winnow: %(message)s")
        logging.getLogger("winnow").setLevel(logging.INFO)
        raise SystemExit(run(shards, out, chosen_formats(formats, default=DISTILLED), as_json=json))
