"""Failures of the machine that the load tester runs on, which must not be blamed on the server."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

_SCARCE = {
    errno.EMFILE: "this machine's limit of open files for a process is reached{limit}; raise it with ulimit -n, "
    "or offer less load",
    errno.ENFILE: "this machine's limit of open files for all processes is reached; raise fs.file-max, "
    "or offer less load",
    errno.EADDRNOTAVAIL: "this machine has no free local port or address for another connection; offer less load, "
    "or widen net.ipv4.ip_local_port_range",
    errno.ENOBUFS: "this machine has no network buffers left; offer less load",
    errno.ENOMEM: "this machine has no memory left for another connection; offer less load",
}


def local_fault(problem: BaseException) -> str | None:
    """Return what this machine lacked, if that is why a connection failed; None if the cause is elsewhere.

    Of several addresses that were tried, as with `localhost`, all must have failed for such a reason.
    """
    codes = {errno.EMFILE if _is_starved_lookup(cause) else cause.errno for cause in _causes(problem)}
    if not codes or not codes <= _SCARCE.keys():
        return None
    scarce = next(code for code in _SCARCE if code in codes)
    return f"not sent: {_SCARCE[scarce].format(limit=_limit())}"


def _causes(problem: BaseException) -> Iterator[OSError]:
    """Yield the operating system's errors at the root of an exception: the ends of its chains of causes."""
    if isinstance(problem, BaseExceptionGroup):
        for each in problem.exceptions:
            yield from _causes(each)
        return
    cause = problem.__cause__ or problem.__context__
    if cause is not None:
        yield from _causes(cause)
    elif isinstance(problem, OSError):
        yield problem


def _is_starved_lookup(cause: OSError) -> bool:
    """Whether a name was not found because its look-up could open no file; the resolver does not say so itself."""
    if not isinstance(cause, socket.gaierror):
        return False
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def _limit() -> str:
    try:
        import resource
    except ImportError:  # this platform has no such limit
        return ""
    return f" ({resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
