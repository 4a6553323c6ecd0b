"""Server-sent events: bytes, however they are cut, as the data of events. Knows nothing of what the data means."""

from __future__ import annotations

from collections.abc import Iterator


class EventDecoder:
    """One event stream. Comments and all fields but `data` are passed over.

    Works on bytes and splits at line feeds alone: `str.splitlines`, and with it httpx's `iter_lines`, would split at U+2028,
    which JSON may hold as it is. A chunk may end anywhere, also within a character.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of every event that `chunk` completes; an event without a blank line behind it is none."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
