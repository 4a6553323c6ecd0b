"""HAProxy and nginx from the system's packages, with the files of docs/deploy, in front of servers on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.live import Reachable, wait_until

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
"""Where proxies are looked for: Debian keeps them out of the PATH of those who are not root."""
PLACES = ("10.0.0.11:8000", "10.0.0.12:8000")
"""The servers' addresses in the files, for which a test puts its own."""
SECONDS = 60.0
"""The longest wait for anything, on a slow machine."""


@dataclass
class Proxy(Reachable):
    """A running proxy; `log` is the file with what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


def _placed(text: str, backends: Sequence[str]) -> str:
    """Return a configuration with the backends' addresses, `http://HOST:PORT`, in the place of the examples."""
    for place, backend in zip(PLACES, (backends[0], backends[-1]), strict=True):
        assert place in text
        text = text.replace(place, backend.removeprefix("http://"))
    return text


def haproxy_config(listener: socket.socket, backends: Sequence[str]) -> str:
    """Return docs/deploy/haproxy.cfg for a listening socket that the process inherits; further backends are added."""
    text = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    text = re.sub(r"^    bind .*$", f"    bind fd@{listener.fileno()}", text, flags=re.MULTILINE)
    more = "".join(
        f"    server more{place} {url.removeprefix('http://')}\n" for place, url in enumerate(backends[1:-1])
    )
    return _placed(text, backends) + more


def _haproxy(folder: Path, listener: socket.socket, backends: Sequence[str]) -> list[str]:
    file = folder / "haproxy.cfg"
    file.write_text(haproxy_config(listener, backends))
    return ["haproxy", "-db", "-f", str(file)]


def _nginx(folder: Path, listener: socket.socket, backends: Sequence[str]) -> list[str]:
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"^    listen .*$", f"    listen 127.0.0.1:{listener.getsockname()[1]};", text, flags=re.MULTILINE)
    more = "".join(f"    server {url.removeprefix('http://')} max_fails=0;\n" for url in backends[1:-1])
    text = _placed(text, backends).replace("    keepalive 64;\n", f"{more}    keepalive 64;\n")
    (folder / "winnow.conf").write_text(text)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "" if os.geteuid() else "user root;\n"  # its worker's would be another, who may not enter the test's folder
    (folder / "nginx.conf").write_text(
        f"{user}daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body;\n{temporary}include {folder}/winnow.conf; }}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


COMMANDS: dict[str, Callable[[Path, socket.socket, Sequence[str]], list[str]]] = {"haproxy": _haproxy, "nginx": _nginx}


def missing(name: str) -> bool:
    """Whether a proxy is not installed."""
    return shutil.which(name, path=PATH) is None


def proxies() -> list[object]:
    """Return the proxies to parametrize a test with; those that are not installed are skipped."""
    reason = "not installed (make proxies)"
    return [
        pytest.param(name, marks=pytest.mark.skipif(missing(name), reason=f"{name} is {reason}")) for name in COMMANDS
    ]


@contextlib.contextmanager
def running(name: str, folder: Path, *backends: str) -> Iterator[Proxy]:
    """Run a proxy in front of servers at `http://HOST:PORT`, and yield it once it passes on that one is ready."""
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with socket.socket() as listener, log.open("wb") as file:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)  # the proxy inherits it: no port is free for a moment only
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            COMMANDS[name](folder, listener, backends),
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PATH": PATH, "NGINX": f"{listener.fileno()};"},
        )
    try:
        assert wait_until(lambda: process.poll() is not None or _is_ready(url), SECONDS), log.read_text()
        assert process.poll() is None, log.read_text()
        yield Proxy(url, process, log)
    finally:
        process.terminate()
        process.wait(SECONDS)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
