from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from winnow.clients.sse import EventDecoder


def decode(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Return the events of `stream`, cut into chunks at `cuts`."""
    decoder = EventDecoder()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@given(st.lists(st.text()), st.lists(st.integers(0, 200)), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", " "]))
@example(["\u2028\u2029\x85 é €"], list(range(60)), "\r\n", " ")
def test_nothing_is_lost_wherever_chunks_end(texts: list[str], cuts: list[int], end: str, space: str) -> None:
    """JSON may contain U+2028 and similar characters unescaped; `str.splitlines` would split an event there."""
    events = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    stream = "".join(f": note{end}data:{space}{event}{end}{end}" for event in events)
    assert decode(stream.encode("utf-8", "surrogatepass"), cuts) == [
        event.encode("utf-8", "surrogatepass") for event in events
    ]


def test_fields_other_than_data_are_ignored() -> None:
    stream = b": comment\n\nevent: x\nid: 1\nretry: 5\ndata\n\n\n\ndatax: 1\n\ndata: a\ndata: b\n\ndata: unfinished\n"
    assert decode(stream, []) == [b"", b"a\nb"]
