"""Garbage collection around the start of engines, whose forked processes share this one's heap.

Importing vLLM leaves a million objects for good. A full collection scans them all, which takes 0.7 s, and writes into
each of them, so that a forked process gets a copy of nearly every page. vLLM asks for three as an engine starts and for
two as it ends. What is frozen is not scanned; reference counts still copy some pages.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """Collect nothing in the block, which imports modules: they stay, and are scanned in vain again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Freeze the heap for the processes that are forked in the block; it stays frozen until `release`.

    A block that raises releases it.
    """
    gc.freeze()
    try:
        yield
    except BaseException:
        release()
        raise


def release() -> None:
    """Let the heap be collected again: what native modules hold they report as leaks on the way out, unless freed."""
    gc.unfreeze()


def inherit() -> None:
    """Collect garbage in a forked process, but never what it has inherited; the process ends without thawing that."""
    gc.enable()
    gc.freeze()
    gc.unfreeze = _stay_frozen


def _stay_frozen() -> None:
    """Do nothing, in place of `gc.unfreeze`: vLLM thaws the heap as an engine ends, and scans it twice."""
