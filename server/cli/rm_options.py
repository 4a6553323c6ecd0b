"""Options that the commands of `winnow rm` share."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from winnow.server.settings.engines import Dtype

SOME_BAD = 3
"""Exit status if the work is done, and some rows could not be used."""

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A folder, a hub id, http://HOST:PORT (a vLLM server) or judge:http://HOST:PORT/v1.",
    ),
]
DataFiles = Annotated[
    list[str],
    typer.Option("--data", metavar="FILE", help="JSON Lines, JSON, CSV (also .gz) or Parquet; may be repeated."),
]
CardFile = Annotated[
    Path | None, typer.Option(help="The model's card (TOML); default: the folder's own, a shipped one, or none.")
]
Seed = Annotated[int, typer.Option(min=0, help="Which half of the prompts is held out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Precision = Annotated[Dtype | None, typer.Option(help="Precision of the engine; default: as winnow serve has it.")]
Context = Annotated[int | None, typer.Option(min=128, help="Tokens of a sequence; default: the checkpoint's own.")]
Tokenizer = Annotated[str | None, typer.Option(help="Model on a vLLM server: folder or hub id with its tokenizer.")]
Model = Annotated[str | None, typer.Option(help="Model on a server: its name there; default: the only one.")]
KeyFile = Annotated[Path | None, typer.Option(help="Model on a server: file with the key that it asks for.")]


def log() -> None:
    """Print the package's own log on standard error."""
    logging.basicConfig(format="winnow: %(message)s", stream=sys.stderr)
    logging.getLogger("winnow").setLevel(logging.INFO)
