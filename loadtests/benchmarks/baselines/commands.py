"""How each server and companion is started.

The peers' vLLM servers get every setting that Winnow gives its own engines and that is an environment variable or a flag: threads that
sleep instead of spinning, no worker process behind an engine, eager mode, float32, prefix caching, 256 sequences, whole prefills, 1 GiB of
KV cache. The comparison is about design, not about settings. What they lack is the half of the threads that Winnow gives a reward model,
and the kernels it replaces to be exact: neither can be had by a flag. As most people would start them, without those settings, they are
measured as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from winnow.loadtests.benchmarks.baselines.servers import Command
from winnow.loadtests.benchmarks.baselines.systems import POLICY
from winnow.models import demo
from winnow.models.engines.environment import COMMON, CPU, EAGER, runs_on_gpu

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content.strip() }} {{ eos_token }}{{ bos_token }}"
    "{% elif m.content %}[INST] {{ m.content.strip() }} [/INST]{% endif %}{% endfor %}"
)
"""For optillm, the only one that chats with vLLM: it puts a system message behind the user's, which Llama-2's template has no place for."""
GPU_SHARES: Mapping[demo.ModelName, float] = {"policy": 0.26, "safety-rm": 0.07, "helpfulness-rm": 0.07}
"""On a GPU: an engine's share of the memory. Two sets of three engines live on the card."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _environment(*, tuned: bool = True) -> dict[str, str]:
    """What `winnow.models.engines.environment.prepare` sets for Winnow's own engines; not `tuned`, only what keeps a server quiet and small."""
    values = {**COMMON, **EAGER, **_OFFLINE}
    if not runs_on_gpu():
        values["VLLM_CPU_KVCACHE_SPACE"] = "1"
        if tuned:
            values |= CPU | {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
    return values


def vllm(model: demo.ModelName, port: int, *, tuned: bool = True) -> Command:
    """vLLM's OpenAI server: it generates, or classifies if `model` is a reward model.

    Not `tuned`, its threads, processes and prefills are as vLLM has them by default.
    """
    flags = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--model",
        str(demo.weights(model)),
        "--served-model-name",
        model,
    ]
    flags += ["--enforce-eager", "--enable-prefix-caching", "--max-num-seqs", "256"]
    flags += ["--no-enable-log-requests", "--disable-uvicorn-access-log"]
    if runs_on_gpu():
        flags += ["--dtype", "bfloat16", "--gpu-memory-utilization", str(GPU_SHARES[model])]
    else:
        flags += ["--dtype", "float32"]
        flags += ["--distributed-executor-backend", "uni", "--no-enable-chunked-prefill"] if tuned else []
    flags += ["--chat-template", CHAT_TEMPLATE] if model == POLICY else ["--runner", "pooling", "--convert", "classify"]
    program = [sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
    return Command(f"vllm ({model})", [*program, *flags], _environment(tuned=tuned))


def winnow(port: int) -> Command:
    """`winnow serve` with its defaults; like vLLM's servers it logs no requests."""
    flags = ["--port", str(port), "--log-level", "warning"]
    if runs_on_gpu():
        flags += ["--policy-memory", str(GPU_SHARES["policy"]), "--rm-memory", str(GPU_SHARES["safety-rm"])]
        flags += ["--rm-kv-cache-gib", "2"]
    return Command("winnow", [str(Path(sys.executable).with_name("winnow")), "serve", *flags], health="/ready")


def optillm(port: int, peers: Path, policy_url: str, candidates: int) -> Command:
    """optillm's proxy with its `bon` approach; its K is a flag of the server."""
    flags = ["--host", "127.0.0.1", "--port", str(port), "--approach", "bon", "--best-of-n", str(candidates)]
    flags += ["--base-url", f"{policy_url}/v1", "--model", POLICY, "--log", "error"]
    return Command("optillm", [str(peers / "bin" / "optillm"), *flags], {"OPENAI_API_KEY": "none"})


def its_hub(peers: Path, urls: Mapping[str, str]) -> Command:
    """The companion that runs its_hub in the peers' own environment."""
    script = Path(__file__).with_name("its_hub_driver.py")
    return Command("its_hub", [str(peers / "bin" / "python"), str(script), *(urls[name] for name in GPU_SHARES)])


def transformers() -> Command:
    """The companion that runs transformers alone."""
    return Command(
        "transformers", [sys.executable, "-m", "winnow.loadtests.benchmarks.baselines.padded_driver"], _environment()
    )
