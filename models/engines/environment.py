"""The process environment that co-located engines need; set once, before vLLM or torch is imported.

vLLM and OpenMP read these settings from the environment only. A value that the operator has set is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import tempfile
import warnings
from importlib.metadata import distributions

COMMON = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
PASSIVE = {
    # Idle threads must sleep, not spin, on few cores: with three engines 0.25 s a request instead of up to 1.2 s.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
}
CPU = {
    **PASSIVE,
    # Attention over split keys sums in an order that depends on the batch; see `winnow.models.engines.vllm_cpu_worker`.
    "VLLM_CPU_ATTN_SPLIT_KV": "0",
    # Otherwise vLLM starts a worker process for each engine process; see `winnow.models.engines.vllm`.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

EAGER = {
    # Even in eager mode vLLM compiles the ranking of log-probabilities at first use: 22 s and a C++ compiler.
    "TORCHDYNAMO_DISABLE": "1",
}

_SERVICE = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)
_PR_SET_PDEATHSIG = 1
ENGINE_NICENESS = 5
"""Niceness of the engines: the server goes first, so that probes and streams stay prompt under load."""


def runs_on_gpu() -> bool:
    """Whether the engines run on a GPU: the distribution `vllm` is built for CUDA, `vllm-cpu` for CPU.

    Read without importing torch, which would load OpenMP before `prepare` has set its waiting policy.
    """
    return any(True for _ in distributions(name="vllm"))


def prepare(*, offline: bool, eager: bool) -> None:
    """Set the environment that the engines need.

    Call it before torch is imported: OpenMP reads its settings as it loads, and the forked engines
    inherit the library. Engines forked afterwards do not receive a terminal's Ctrl-C, which would abort
    the requests that the server still wants to finish, and they die with the server even if that is
    killed without a chance to clean up.

    Args:
        offline: forbid access to the model hub; for local checkpoints.
        eager: forbid compilation.
    """
    values = dict(COMMON)
    if not runs_on_gpu():
        values |= CPU
        values["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    if eager:
        values |= EAGER
    if offline:
        values |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    _drop_misread()
    _find_cache()
    logging.getLogger("vllm").setLevel(logging.ERROR)  # its Triton notes precede the level above
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")  # nothing an operator could act on
    warnings.filterwarnings("ignore", message="Unclosed context .zmq", category=ResourceWarning)  # at the exit
    libc = ctypes.CDLL(None, use_errno=True)

    def detach() -> None:
        os.setpgid(0, 0)
        os.nice(ENGINE_NICENESS)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    os.register_at_fork(after_in_child=detach)


def _drop_misread() -> None:
    """Remove variables that are meant for others and end vLLM's start.

    Kubernetes sets `VLLM_PORT=tcp://…` for a Service called `vllm`, which vLLM reads as a number. Where warnings are
    errors, the processes that vLLM starts end at their own imports.
    """
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]
    for name in [name for name in os.environ if name.startswith("VLLM_") and name.endswith("_PORT")]:
        if _SERVICE.match(os.environ[name]):
            del os.environ[name]


def _find_cache() -> None:
    """Give vLLM a temporary cache folder if the user's cannot be written, as in a hardened container."""
    named = os.environ.get("VLLM_CACHE_ROOT") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = os.path.expanduser(named)
    is_known = not root.startswith("~")  # a user that has no home, as in a container
    if is_known:
        with contextlib.suppress(OSError):
            os.makedirs(root, exist_ok=True)
    if not is_known or not os.access(root, os.W_OK):
        os.environ["VLLM_CACHE_ROOT"] = folder = tempfile.mkdtemp(prefix="winnow-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
