from __future__ import annotations

import errno
import resource
import socket

import httpx
import pytest

from winnow.loadtests.local_faults import local_fault


def failed(*causes: OSError) -> httpx.ConnectError:
    """Return a failed connection as httpx raises it, after attempts at several addresses."""
    problem, middle = httpx.ConnectError("All connection attempts failed"), OSError("All connection attempts failed")
    middle.__cause__ = causes[0] if len(causes) == 1 else ExceptionGroup("attempts", list(causes))
    problem.__cause__ = middle
    return problem


def error(code: int) -> OSError:
    return OSError(code, "failed")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EADDRNOTAVAIL, "no free local port"),
        (errno.ENOBUFS, "network buffers"),
        (errno.ENOMEM, "memory"),
    ],
)
def test_a_fault_of_this_machine_is_named(code: int, words: str) -> None:
    for problem in (failed(error(code)), failed(error(code), error(code))):
        fault = local_fault(problem) or ""
        assert fault.startswith("not sent: this machine")
        assert words in fault


def test_other_faults_are_not_this_machines() -> None:
    refused = error(errno.ECONNREFUSED)
    # a machine without IPv6 cannot even try ::1, yet the server is absent
    for problem in (failed(refused), failed(refused, error(errno.EADDRNOTAVAIL)), httpx.ReadTimeout("slow")):
        assert local_fault(problem) is None


def test_a_lookup_that_could_open_no_file_is_told_from_an_unknown_name() -> None:
    problem = failed(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    assert local_fault(problem) is None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert "limit of open files for a process is reached (3)" in (local_fault(problem) or "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
