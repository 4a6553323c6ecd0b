"""`winnow chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from winnow.clients.connection import BASE_URL
from winnow.server.cli.options import one_line_errors, read_key


def chat(
    url: Annotated[str, typer.Option(help="The server's OpenAI base URL.")] = BASE_URL,
    candidates: Annotated[int | None, typer.Option(help="K; default: the server's.")] = None,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Show the candidates with their scores.")] = False,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the key, if the server requires one.")] = None,
) -> None:
    """Talk to a server from the terminal."""
    from winnow.clients.chat import talk

    with one_line_errors():
        api_key = read_key(api_key_file)
    raise SystemExit(talk(url, candidates=candidates, show=show, system=system, api_key=api_key))
