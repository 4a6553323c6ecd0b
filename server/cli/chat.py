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
    history: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps the messages you type, for the next time; default: they are kept until you leave."
        ),
    ] = None,
) -> None:
    """Talk to a server from the terminal.

    Enter sends, Alt-Enter or Ctrl-J starts a new line; pasted lines are one
    message. Ctrl-R searches earlier messages, Ctrl-C stops an answer or clears
    the message, Ctrl-D leaves. /help lists the commands; a message that begins
    with a slash is typed with two, as in //path.

    Without a terminal each line of standard input is a message. Answers go to
    standard output, errors to standard error; a message that gets no answer
    does not stop the others.

    Exit status: 0 after a conversation in a terminal, and if every message of
    a pipe was answered; 1 if one was not, or if there is no server.
    """
    from winnow.clients.chat.conversation import talk

    with one_line_errors():
        api_key = read_key(api_key_file)
    raise SystemExit(talk(url, candidates=candidates, show=show, system=system, api_key=api_key, history=history))
