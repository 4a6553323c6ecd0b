from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from winnow.loadtests.streams import SafeStream


def encoded(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_any_text_can_be_written_in_any_encoding(text: str, encoding: str) -> None:
    stream = SafeStream(encoded(encoding))
    assert stream.write(text) == len(text)
    stream.flush()
    assert stream.error is None
    assert stream.is_unicode == (encoding == "utf-8")


def test_the_first_error_is_kept_and_nothing_is_raised() -> None:
    class Full(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    full = Full()
    stream = SafeStream(full)
    stream.write("a")
    stream.write("b")
    stream.flush()
    assert stream.error is not None
    assert (stream.error.errno, full.writes) == (errno.ENOSPC, 1)


def test_a_stream_that_is_absent_or_closed_takes_everything() -> None:
    closed = encoded("utf-8")
    closed.close()
    for stream in (SafeStream(None), SafeStream(closed)):
        stream.write(json.dumps("–"))
        stream.flush()
        assert not stream.isatty()
        assert stream.error is not None
        assert stream.error.errno == errno.EBADF


def test_what_is_still_buffered_for_a_full_device_goes_nowhere(tmp_path: Path) -> None:
    """Otherwise the interpreter's own flush at its end would fail again and change the exit status."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        stream = SafeStream(full)
        stream.write("a")
        stream.flush()
        assert stream.error is not None
        assert os.fstat(full.fileno()).st_rdev == os.stat(os.devnull).st_rdev
