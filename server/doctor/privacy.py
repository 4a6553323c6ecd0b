"""Keeps out of a report what identifies a person or a machine: folders, the user's name, the host's name, secrets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Any

from winnow.server.settings import ENGINES, options

_PATH = re.compile(r"(?<![\w.~…/:-])/(?:[^\s/:'\"(),\[\]]+/)+([^\s/:'\"(),\[\]]*)")
"""An absolute path of two parts at least; the last part may be empty. Not one that follows a scheme, as in a URL."""
_HOME = re.compile(r"(?<![\w.~])/(?:home|Users)/[^\s/:'\"(),\[\]]+")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
_HARMLESS = re.compile(r"[\w.,:+/~ =\[\]-]{0,200}")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_FAMILIES = (
    "VLLM_", "CUDA_", "NVIDIA_", "OMP_", "GOMP_", "KMP_", "MKL_", "TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "HF_",
    "TRANSFORMERS_", "NCCL_", "WINNOW_",
)  # fmt: skip
"""Beginnings of names that are listed; any other variable is left out."""
_SHOWN = {
    "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_VISIBLE_DEVICES", "FLASHINFER_DISABLE_VERSION_CHECK", "GOMP_SPINCOUNT",
    "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS",
    "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_PROC_BIND",
    "OMP_WAIT_POLICY", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHDYNAMO_DISABLE", "TORCH_CPP_LOG_LEVEL", "TORCH_CUDA_ARCH_LIST", "TRANSFORMERS_OFFLINE", "TRITON_INTERPRET",
    "VLLM_ATTENTION_BACKEND", "VLLM_BATCH_INVARIANT", "VLLM_CPU_ATTN_SPLIT_KV", "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_CPU_OMP_THREADS_BIND", "VLLM_DISABLE_COMPILE_CACHE", "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_FLASH_ATTN_VERSION", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_TARGET_DEVICE",
    "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_USE_V1", "VLLM_WORKER_MULTIPROC_METHOD",
}  # fmt: skip
"""Names whose values are shown: numbers, switches and names of methods."""


def clean(value: Any) -> Any:
    """Return `value` with every text in it cleaned; see `clean_text`."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {name: clean(item) for name, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


def clean_text(text: str) -> str:
    """Return `text` with paths cut to their last part, and without the home, the host's name, addresses and URLs."""
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(rf"(?<![\w.~]){re.escape(home)}(?![\w.-])", "~", text)
    text = _HOME.sub("~", text)
    text = _URL.sub("(an address)", text)
    text = _PATH.sub(lambda match: f"…/{match[1]}", text)
    text = _ADDRESS.sub("(an address)", text)
    host = socket.gethostname()
    if len(host) > 2 and host != "localhost":
        text = re.sub(rf"\b{re.escape(host)}\b", "(this host)", text)
    return text


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return the variables that matter to the engines, sorted by name; None in place of a value that is not shown.

    Values are shown of an allow-list of names, and of settings that decide memory but name no checkpoint. A name that
    may stand for a secret is left out with its value.
    """
    found = os.environ if variables is None else variables
    shown = _SHOWN | _shown_settings()
    return {
        name: clean_text(found[name]) if name in shown and _HARMLESS.fullmatch(found[name]) else None
        for name in sorted(found)
        if name.startswith(_FAMILIES) and not _SECRET.search(name)
    }


def _shown_settings() -> set[str]:
    checkpoints = {*ENGINES, "safety_rm", "helpfulness_rm"}
    return {f"WINNOW_{option.name.upper()}" for option in options() if option.decides_memory} - {
        f"WINNOW_{name.upper()}" for name in checkpoints
    }
