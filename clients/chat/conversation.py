"""A conversation: messages in, answers out, and the exit status."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from winnow.clients.answers import Answer
from winnow.clients.chat.commands import Unsendable, help_text, parse
from winnow.clients.chat.screen import Screen
from winnow.clients.chat.sources import PipedLines, Source
from winnow.clients.client import Client
from winnow.clients.errors import UnusableEnvironment, WinnowClientError

Messages = list[dict[str, str]]

INTERRUPTED = 130
"""Exit status after Ctrl-C, where nobody can be asked what else to do; shells use it, too."""


def talk(
    url: str,
    *,
    candidates: int | None,
    show: bool,
    system: str | None,
    api_key: str | None = None,
    history: Path | None = None,
) -> int:
    """Run a conversation and return the exit status. No retries: the user can ask again.

    In a terminal it ends when the user leaves, with 0. Lines from a pipe are a message each; all of them are sent, and
    the status is 1 if one got no answer. The file `history` keeps the messages that were typed.
    """
    screen = Screen()
    try:
        source = open_source(history)
        client = Client(url, api_key=api_key, max_retries=0)
    except (ValueError, UnusableEnvironment) as error:
        screen.fail(str(error))
        return 1
    try:
        with client:
            model = client.models()[0].id
            hint = " Type a message; /help lists commands and keys, Ctrl-D leaves." if source.is_interactive else ""
            screen.note(f"{model} at {url}.{hint}")
            with source:
                return Conversation(client, screen, source, candidates, show, system).run()
    except WinnowClientError as error:
        screen.fail(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def open_source(history: Path | None) -> Source:
    """Return the line editor if a person sits at a terminal, else the lines of standard input.

    Raises:
        ValueError: the history file cannot be used.
    """
    screens = (sys.stdout, sys.stderr)
    if sys.stdin is None or not sys.stdin.isatty() or not any(screen and screen.isatty() for screen in screens):
        return PipedLines(sys.stdin)
    from winnow.clients.chat.editor import Editor

    return Editor(history)


class Conversation:
    """The dialog so far, and the options of the next request."""

    def __init__(
        self,
        client: Client,
        screen: Screen,
        source: Source,
        candidates: int | None = None,
        show: bool = False,
        system: str | None = None,
    ) -> None:
        self._client = client
        self._screen = screen
        self._source = source
        self._candidates = candidates
        self._show = show
        self._opening: Messages = [{"role": "system", "content": system}] if system else []
        self._dialog = list(self._opening)

    def run(self) -> int:
        """Answer messages until they end or the user leaves; return the exit status.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, and nobody can be asked what else to do.
        """
        failed = 0
        while (text := self._source.read()) is not None:
            try:
                command, message = parse(text)
                if command == "/quit":
                    break
                if command:
                    self._obey(command)
                else:
                    self._ask(message)
            except (Unsendable, WinnowClientError) as error:
                self._screen.fail(str(error))
                failed += 1
            except KeyboardInterrupt:
                if not self._source.is_interactive:
                    raise
                self._screen.note("stopped")
        return 1 if failed and not self._source.is_interactive else 0

    def _obey(self, command: str) -> None:
        match command:
            case "/new":
                self._dialog = list(self._opening)
            case "/show" | "/hide":
                self._show = command == "/show"
            case "/help":
                self._screen.note(help_text())

    def _ask(self, message: str) -> None:
        """Send a message and print the answer; only then is the message part of the dialog."""
        question: Messages = [*self._dialog, {"role": "user", "content": message}]
        events = self._client.stream(question, candidates=self._candidates, return_candidates=self._show)
        with closing(events):
            answer: Answer | None = self._screen.stream(events)
        if answer:
            self._dialog = [*question, {"role": "assistant", "content": answer.text}]
            self._screen.scores(answer, candidates=self._show)
