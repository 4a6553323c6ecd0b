"""The commands of the chat, and how a message that begins with a slash is told from them. Pure."""

from __future__ import annotations

COMMANDS = {
    "/show": "show every candidate with its scores",
    "/hide": "show the best answer only",
    "/new": "start a new dialog",
    "/help": "show this list",
    "/quit": "leave, as Ctrl-D does",
}
KEYS = {
    "Enter": "send",
    "Alt-Enter, Ctrl-J": "a new line; pasted lines are one message",
    "↑ ↓, Ctrl-R": "earlier messages, search in them",
    "Ctrl-C": "clear the message, or stop the answer",
    "Ctrl-D": "leave",
}
"""Keys of the line editor; the arrows, Home, End and Emacs' keys move the cursor."""


def help_text() -> str:
    """Return the commands, and the keys of the editor, one a line."""
    slash = {"//…": "a message that begins with one slash"}
    lines = (f"  {name:<18} {effect}" for name, effect in {**COMMANDS, **slash, **KEYS}.items())
    return "\n".join(lines)


class Unsendable(ValueError):
    """Text that is neither a command nor a message; the exception's message says how to send it."""


def parse(text: str) -> tuple[str | None, str]:
    """Return a command and an empty message, or None and the message to send.

    A command is one line. Of a line that begins with two slashes the second begins the message; text of several
    lines, such as pasted code, is a message as it is.

    Raises:
        Unsendable: the line looks like a command and is none, or its bytes could not be decoded.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unsendable("the message has bytes that are no text in UTF-8; convert it first")
    if not text.startswith("/") or "\n" in text:
        return None, text
    if text.startswith("//"):
        return None, text[1:]
    if text not in COMMANDS:
        name = text.split()[0]
        raise Unsendable(f"there is no command {name}; /help lists them. To send it as a message, type /{name} …")
    return text, ""
