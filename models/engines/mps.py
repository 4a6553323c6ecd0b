"""NVIDIA's Multi-Process Service (MPS): whether its control daemon runs.

Without it, kernels of different processes take turns on a card. CUDA connects each process to the daemon by
itself, if it finds the daemon's control socket. `CUDA_MPS_PIPE_DIRECTORY` names the folder of that socket.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

DEFAULT_FOLDER = "/tmp/nvidia-mps"  # noqa: S108, NVIDIA's default
WORDS = {True: "on", False: "off", None: "unknown"}
"""Words for what `is_running` and a card's `mps` say."""
_LISTENS = (0, errno.EPROTOTYPE, errno.EAGAIN)
"""Outcomes of a connection that show a listener, also one of another kind of socket, or with a full queue."""


def is_running() -> bool | None:
    """Return whether a control daemon listens in MPS's folder; None if the folder holds something unknown.

    Its process id, which lies there too, would not do: within a container the daemon's process is not seen.
    """
    control = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or DEFAULT_FOLDER) / "control"
    try:
        mode = control.stat().st_mode
    except OSError:
        return False
    if stat.S_ISSOCK(mode):
        return _socket_listens(control)
    return _pipe_is_read(control) if stat.S_ISFIFO(mode) else None


def _socket_listens(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.setblocking(False)
        try:
            return client.connect_ex(str(control)) in _LISTENS
        except OSError:  # the path is longer than a socket's address, so CUDA cannot connect either
            return False


def _pipe_is_read(control: Path) -> bool:
    try:
        os.close(os.open(control, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True
