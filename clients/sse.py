"""A decoder of server-sent events: from bytes in arbitrary chunks to the data of events, whose content it ignores."""

from __future__ import annotations

from collections.abc import Iterator


class EventDecoder:
    """Decodes one event stream. Comments and all fields except `data` are ignored.

    Works on bytes and splits at line feeds only: `str.splitlines`, and so httpx's `iter_lines`, would also split at
    U+2028, which JSON may contain unescaped. A chunk may end anywhere, even inside a character.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that `chunk` completes. An event ends with a blank line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
