"""A control daemon of MPS, found by its socket or pipe."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from winnow.models.engines import mps


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    return tmp_path


def test_no_folder_and_an_empty_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mps.is_running() is False
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(folder / "nowhere"))
    assert mps.is_running() is False
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")
    monkeypatch.setattr(mps, "DEFAULT_FOLDER", str(folder / "default"))
    assert mps.is_running() is False


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_a_socket_that_is_listened_to(folder: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as daemon:
        daemon.bind(str(folder / "control"))
        daemon.listen(1)
        assert mps.is_running() is True
    assert (folder / "control").exists()
    assert mps.is_running() is False, "the daemon has ended and left its socket"


def test_a_folder_whose_name_is_longer_than_a_sockets_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start ended with a traceback, "AF_UNIX path too long"."""
    deep = folder / ("x" * 120)
    deep.mkdir()
    monkeypatch.chdir(deep)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(deep))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.bind("control")
        daemon.listen(1)
        assert mps.is_running() is False


def test_a_pipe_that_is_read(folder: Path) -> None:
    os.mkfifo(folder / "control")
    assert mps.is_running() is False, "no daemon reads"
    reader = os.open(folder / "control", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert mps.is_running() is True
    finally:
        os.close(reader)


def test_something_else(folder: Path) -> None:
    (folder / "control").write_text("")
    assert mps.is_running() is None
