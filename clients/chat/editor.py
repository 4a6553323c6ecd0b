"""The line editor of the chat, made of prompt_toolkit: history, search, and messages of several lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import is_searching
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.input.defaults import create_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import is_dumb_terminal

from winnow.clients.chat.sources import decoded, trimmed

PROMPT = FormattedText([("bold ansicyan", "you › ")])
HINT = "Ctrl-D or /quit leaves\n"


class Editor:
    """Messages that are typed or pasted into a terminal.

    Between the messages the terminal neither echoes nor edits what is typed ahead: it would garble the answer, and cut
    a line at 4,095 bytes. Ctrl-C still raises KeyboardInterrupt then.
    """

    is_interactive = True

    def __init__(self, history: Path | None = None, input: Input | None = None, output: Output | None = None) -> None:
        """Create an editor; it keeps the messages in the file `history`, by default only for the conversation.

        Raises:
            ValueError: the history file cannot be read or written.
        """
        self._input = input or _keyboard()
        self._output = output or _terminal()
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=lambda width, *_: " " * width,
            reserve_space_for_menu=0,
            enable_suspend=True,
            history=InMemoryHistory() if history is None else _file(history),
            key_bindings=self._keys(),
            input=self._input,
            output=self._output,
        )
        self._is_within_text = False
        self._session.default_buffer.on_text_changed += self._note_text
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._exits.enter_context(_quiet(self._input))
        self._exits.enter_context(_unwound_by_sigterm())
        self._exits.callback(self._mark_pastes, wanted=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def read(self) -> str | None:
        """Return the next message; None once Ctrl-D was pressed on an empty one."""
        while True:
            try:
                text = self._session.prompt()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    self._output.write(HINT)
                    self._output.flush()
                continue
            self._mark_pastes(wanted=True)
            if message := trimmed(decoded(text, _encoding())):
                return message

    def _mark_pastes(self, *, wanted: bool) -> None:
        """Let the terminal mark what is pasted during an answer, too, so that its lines stay together."""
        if not is_dumb_terminal():
            (self._output.enable_bracketed_paste if wanted else self._output.disable_bracketed_paste)()
            self._output.flush()

    def _keys(self) -> KeyBindings:
        """Return what differs from prompt_toolkit's keys: Enter sends, also where the text has several lines."""
        keys = KeyBindings()

        @keys.add("enter", filter=~is_searching)
        def send(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=~is_searching)
        def start_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-j", filter=~is_searching)
        def start_line_or_send(event: KeyPressEvent) -> None:
            # A program that types for a person ends its text with Ctrl-J, at once: that is Enter. Within such a text,
            # and where a person presses it, it starts a line.
            is_last = not event.key_processor.input_queue
            (send if self._is_within_text and is_last else start_line)(event)

        return keys

    def _note_text(self, _: Buffer) -> None:
        """Remember that text was typed, until all that arrived with it has been read."""
        with contextlib.suppress(RuntimeError):  # no loop: the text is not typed
            asyncio.get_running_loop().call_soon(setattr, self, "_is_within_text", False)
            self._is_within_text = True


def _encoding() -> str:
    return getattr(sys.stdin, "encoding", None) or "utf-8"


def _keyboard() -> Input:
    if sys.platform == "win32":
        return create_input()
    from winnow.clients.chat.keyboard import Keyboard

    return Keyboard(sys.stdin)


def _terminal() -> Output:
    """Return the terminal on standard output, or on standard error if only that is one.

    It is not asked for the cursor's position: the answer could arrive among the keys, and nothing here needs it.
    """
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output


class _HistoryFile(FileHistory):
    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):  # a disk that is full by now must not end the conversation
            super().store_string(string)


def _file(path: Path) -> History:
    """Return the history in a file, which only its owner can read if it is new."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"--history {path} cannot be used: it is no regular file")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        raise ValueError(f"--history {path} cannot be used: {error.strerror}") from None
    return _HistoryFile(path)


@contextlib.contextmanager
def _quiet(source: Input) -> Iterator[None]:
    """Keep a terminal from echoing and editing lines within the block; prompt_toolkit does both itself."""
    try:
        import termios
    except ImportError:  # this platform has other terminals
        yield
        return
    try:
        terminal = source.fileno()
        before, quiet = termios.tcgetattr(terminal), termios.tcgetattr(terminal)
    except (termios.error, NotImplementedError):  # no terminal, as in tests
        yield
        return
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


@contextlib.contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that the terminal is left as it was."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
