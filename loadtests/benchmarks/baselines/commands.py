"""The command line and environment of each server and driver.

The baselines' vLLM servers get every setting of Winnow's own engines that is an environment variable or a flag:
threads that sleep instead of spinning, no worker process behind an engine, eager mode, float32, prefix caching,
256 sequences, whole prefills, 1 GiB of KV cache. The comparison is about design, not about settings. Two things
cannot be had by a flag: half of the threads, which Winnow gives a reward model, and the kernels that it
replaces to be exact. The servers are also measured as most people would start them, without those settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from winnow.loadtests.benchmarks.baselines.systems import POLICY
from winnow.loadtests.benchmarks.processes import Command
from winnow.loadtests.benchmarks.winnow_process import serve_command
from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.environment import COMMON, CPU, NOT_COMPILED, runs_on_gpu

OPTILLM_DIALOG = """\
{%- set state = namespace(kept=[]) -%}
{%- for message in messages if message.content -%}
    {%- if message.role == 'system' and state.kept -%}
        {%- set text = state.kept[-1].content ~ '\\n' ~ message.content -%}
        {%- set state.kept = state.kept[:-1] + [{'role': state.kept[-1].role, 'content': text}] -%}
    {%- else -%}
        {%- set state.kept = state.kept + [message] -%}
    {%- endif -%}
{%- endfor -%}
{%- set messages = state.kept -%}
"""
"""Precedes the chat template of the baselines' policy, for optillm, the only client that sends it messages.

optillm sends empty system messages, and a system message after the user's, for which Llama 2 has no place: the
first are dropped, the second is appended to the message before it.
"""
GPU_SHARES: Mapping[demo.ModelName, float] = {"policy": 0.26, "safety-rm": 0.07, "helpfulness-rm": 0.07}
"""An engine's share of a GPU's memory: two sets of three engines live on the card."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def chat_template() -> str:
    """Return the chat template of the baselines' policy: Winnow's own, extended for optillm's messages."""
    return OPTILLM_DIALOG + TEMPLATES["llama2"].jinja


def _environment(*, tuned: bool = True) -> dict[str, str]:
    """Return the environment of Winnow's own engines; unless `tuned`, only what keeps a server quiet and small."""
    values = {**COMMON, **NOT_COMPILED, **_OFFLINE}
    if not runs_on_gpu():
        values["VLLM_CPU_KVCACHE_SPACE"] = "1"
        if tuned:
            values |= CPU | {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
    return values


def vllm(model: demo.ModelName, port: int, *, tuned: bool = True) -> Command:
    """Return the command of vLLM's OpenAI server, which generates, or classifies if `model` is a reward model.

    If not `tuned`, its threads, processes and prefills are vLLM's defaults.
    """
    flags = ["--host", "127.0.0.1", "--port", str(port)]
    flags += ["--model", str(demo.weights(model)), "--served-model-name", model]
    flags += ["--enforce-eager", "--enable-prefix-caching", "--max-num-seqs", "256"]
    flags += ["--no-enable-log-requests", "--disable-uvicorn-access-log"]
    if runs_on_gpu():
        flags += ["--dtype", "bfloat16", "--gpu-memory-utilization", str(GPU_SHARES[model])]
    else:
        flags += ["--dtype", "float32"]
        flags += ["--distributed-executor-backend", "uni", "--no-enable-chunked-prefill"] if tuned else []
    flags += (
        ["--chat-template", chat_template()] if model == POLICY else ["--runner", "pooling", "--convert", "classify"]
    )
    program = [sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
    return Command(f"vllm ({model})", [*program, *flags], _environment(tuned=tuned))


def winnow(port: int) -> Command:
    """Return the command of `winnow serve` with its defaults; like vLLM's servers it logs no requests."""
    flags = ["--log-level", "warning"]
    if runs_on_gpu():
        flags += ["--policy-memory", str(GPU_SHARES["policy"]), "--rm-memory", str(GPU_SHARES["safety-rm"])]
        flags += ["--rm-kv-cache-gib", "2"]
    return serve_command(port, flags)


def optillm(port: int, peers: Path, policy_url: str, candidates: int) -> Command:
    """Return the command of optillm's proxy with its `bon` approach; K is a flag of the server."""
    flags = ["--host", "127.0.0.1", "--port", str(port), "--approach", "bon", "--best-of-n", str(candidates)]
    flags += ["--base-url", f"{policy_url}/v1", "--model", POLICY, "--log", "error"]
    return Command("optillm", [str(peers / "bin" / "optillm"), *flags], {"OPENAI_API_KEY": "none"})


def its_hub(peers: Path, urls: Mapping[str, str]) -> Command:
    """Return the command of the driver that runs its_hub in the baselines' environment."""
    driver = "winnow.loadtests.benchmarks.baselines.its_hub_driver"
    return Command("its_hub", [str(peers / "bin" / "python"), "-m", driver, *(urls[name] for name in GPU_SHARES)])


def transformers() -> Command:
    """Return the command of the driver that runs transformers alone."""
    driver = "winnow.loadtests.benchmarks.baselines.padded_driver"
    return Command("transformers", [sys.executable, "-m", driver], _environment())
