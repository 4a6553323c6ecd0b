"""The process environment that co-located engines need; set once, before vLLM or torch is imported.

vLLM and OpenMP read these settings from the environment only. A value that the operator has set is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from importlib.metadata import distributions, version

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
FEW_PRODUCTS = {
    # oneDNN keeps a matrix product for each number of rows that it has seen, 1,024 by default and about 0.8 MB each:
    # gigabytes in a training, 0.5 GiB in an engine under load.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
TRAINING = {**FEW_PRODUCTS, "LRU_CACHE_CAPACITY": "64"}
"""Of a training: the second is the cache of ideep, between PyTorch and oneDNN."""
CPU = {
    **PASSIVE,
    **FEW_PRODUCTS,
    # Attention over split keys sums in an order that depends on the batch; see `winnow.models.engines.vllm_cpu_worker`.
    "VLLM_CPU_ATTN_SPLIT_KV": "0",
    # Otherwise vLLM starts a worker process for each engine process; see `winnow.models.engines.vllm`.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

GPU = {
    # FlashInfer's sampler is compiled at run time by nvcc, which neither vLLM's wheels nor most machines have.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # The memory plan keeps room for CUDA graphs outside an engine's share, as vLLM 0.26 has it. Later versions would
    # take it from within, and could leave too little for one sequence.
    "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0",
    # A package that vLLM brings along, and Llama does not need, would build its kernels in the background, at home.
    "HUMMING_DISABLE_PARALLEL_BUILD": "1",
    # Asked for the number of cards, torch would otherwise initialise CUDA, and the engines could not be forked.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}

NOT_COMPILED = {
    # Even in eager mode vLLM compiles the ranking of log-probabilities at first use: 22 s and a C++ compiler.
    "TORCHDYNAMO_DISABLE": "1",
}
START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
"""Variable with which vLLM is told to fork or to spawn its engines."""

_SERVICE = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)
_HOME_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
}
"""Folders that vLLM and its libraries would make in the user's home, and their names where they are moved to."""


def runs_on_gpu() -> bool:
    """Whether the engines run on a GPU: the distribution `vllm` is built for CUDA, `vllm-cpu` for CPU.

    Read without importing torch, which would load OpenMP before `prepare` has set its waiting policy.
    """
    return any(True for _ in distributions(name="vllm"))


def engine_version() -> str:
    """Return the distribution of vLLM that the engines run on, and its version."""
    package = "vllm" if runs_on_gpu() else "vllm-cpu"
    return f"{package} {version(package)}"


def may_fork() -> bool:
    """Whether engines may be forked from this process, which is faster than to spawn them.

    Ask before `prepare`. OpenMP's threads, which torch starts as it first computes, do not survive a fork, and the
    engine would wait for them forever; so torch must not have been imported. An operator who sets `START_METHOD` to
    "spawn" is obeyed.
    """
    return "torch" not in sys.modules and os.environ.get(START_METHOD) != "spawn"


def prepare(*, offline: bool, compiled: bool) -> None:
    """Set the environment that the engines need.

    Call it before torch is imported: OpenMP reads its settings as it loads, and the forked engines
    inherit the library.

    Args:
        offline: forbid access to the model hub; for local checkpoints.
        compiled: allow compilation.
    """
    values = dict(COMMON)
    if runs_on_gpu():
        values |= GPU
    else:
        values |= CPU
        values["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    if not compiled:
        values |= NOT_COMPILED
    if offline:
        values |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    _drop_misread()
    _find_caches()
    _name_user()
    logging.getLogger("vllm").setLevel(logging.ERROR)  # its Triton notes precede the level above
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")  # nothing an operator could act on
    warnings.filterwarnings("ignore", message="Unclosed context .zmq", category=ResourceWarning)  # at the exit


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


def _find_caches() -> None:
    """Give vLLM and its libraries a temporary cache folder if the user's cannot be written, as in a hardened container.

    A folder that the operator has set stays, if it can be written. Where the user's cache folder can be written and
    only the home cannot, all lie in the cache folder. An empty variable counts as none: vLLM would take it for the
    working directory.
    """
    for variable in ("XDG_CACHE_HOME", *_HOME_CACHES):
        if os.environ.get(variable) == "":
            del os.environ[variable]
    named = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    has_cache = _is_writable(named)
    has_home = has_cache and _is_writable("~")
    moved = [
        variable
        for variable in _HOME_CACHES
        if not (_is_writable(os.environ[variable]) if variable in os.environ else has_home)
    ]
    if not moved:
        return
    root = os.path.expanduser(named)
    if not has_cache:
        root = tempfile.mkdtemp(prefix="winnow-")
        atexit.register(shutil.rmtree, root, ignore_errors=True)
    if os.path.expanduser("~").startswith("~"):
        os.environ["HOME"] = root  # FlashInfer, which vLLM imports to choose its kernels, must know one
    for variable in moved:
        os.environ[variable] = os.path.join(root, _HOME_CACHES[variable])


def _name_user() -> None:
    """Name a user whom the machine does not know, as a container may have: PyTorch's compiler asks for the name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _is_writable(folder: str) -> bool:
    """Whether `folder` is a folder, or can be made, and can be written; "~" of a user without a home cannot."""
    path = os.path.expanduser(folder)
    if path.startswith("~"):
        return False
    with contextlib.suppress(OSError):
        os.makedirs(path, exist_ok=True)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
