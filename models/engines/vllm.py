"""Starts vLLM engines, behind the protocols of `winnow.models.policy` and `winnow.models.reward_model`.

Each engine is an `AsyncLLM` with a process of its own; a policy samples, a reward model pools. Starting
one blocks, and must be done from the main thread before any event loop runs: engines are forked where they can be.
Call `winnow.models.engines.environment.prepare` before this module is imported: vLLM and OpenMP read
the environment as they load.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from winnow.models.engines import heap, vllm_loader
from winnow.models.engines.base import AnswerReader, EngineOptions
from winnow.models.engines.environment import START_METHOD
from winnow.models.engines.heads import PLAIN, Head
from winnow.models.engines.output import EngineOutput
from winnow.models.engines.planning import CPU_SCORING_BLOCK
from winnow.models.engines.process import Attachment
from winnow.models.engines.vllm_engine import one_line
from winnow.models.engines.vllm_policy import VllmPolicy
from winnow.models.engines.vllm_process import attached
from winnow.models.engines.vllm_reward_model import VllmRewardModel
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

DECODING_GRAPHS = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
"""vLLM's compilation: none, but whole decoding steps as CUDA graphs."""


def start_policy(options: EngineOptions, tokenizer: Tokenizer) -> VllmPolicy:
    """Start the sampling engine.

    Raises:
        CheckpointError: vLLM could not load the checkpoint.
    """
    output = EngineOutput(options.name)
    return VllmPolicy(_start(options, output, runner="generate"), output, options.name, tokenizer)


def start_reward_model(options: EngineOptions, reward_input: AnswerReader, head: Head = PLAIN) -> VllmRewardModel:
    """Start a scoring engine, which reads the token ids of `reward_input` and has the score in `head`.

    Raises:
        CheckpointError: vLLM could not load the checkpoint.
    """
    output = EngineOutput(options.name)
    llm = _start(options, output, runner="pooling", convert="classify", **_loading(options, head))
    return VllmRewardModel(llm, output, options.name, reward_input, head)


def _loading(options: EngineOptions, head: Head) -> dict[str, Any]:
    """Return how vLLM loads a head that it does not load by itself; random weights have none to load."""
    if head.is_plain:
        return {}
    if options.load_format == "dummy":
        return {"hf_overrides": head.overrides}
    return {
        "hf_overrides": head.overrides,
        "load_format": vllm_loader.LOAD_FORMAT,
        "model_loader_extra_config": {vllm_loader.HEAD: head.as_dict()},
        "worker_extension_cls": vllm_loader.EXTENSION,
    }


def _start(options: EngineOptions, output: EngineOutput, **role: Any) -> AsyncLLM:
    if not logger.isEnabledFor(logging.DEBUG):
        # vLLM logs the traceback of an engine that has died; `EngineDead` says it in one line.
        logging.getLogger(AsyncLLM.__module__).setLevel(logging.CRITICAL)
    try:
        with output.inherited():
            config = _arguments(options, **role).create_engine_config()
            if not options.on_gpu:
                _require_head_size(config.model_config.get_head_size())
            os.environ[START_METHOD] = _start_method(options)
            ties = Attachment.to_this_process(on_gpu=options.on_gpu, scores=role["runner"] == "pooling")
            with heap.shared(), attached(ties):
                return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"vLLM could not start the {options.name} engine on {options.checkpoint}: {_cause(error, output)}"
        ) from error


def _require_head_size(size: int) -> None:
    """Check that vLLM's attention on CPU has such heads; one that it has not ends the engine at its first request.

    Raises:
        ValueError: it has not.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    if size not in (known := CPUAttentionBackend.get_supported_head_sizes()):
        raise ValueError(f"heads of {size} numbers (head_dim) are not computed on CPU, only of {known}")


def _start_method(options: EngineOptions) -> str:
    """Return vLLM's start method. A spawned engine imports everything again: for three on CPU 14 s more."""
    return "fork" if options.fork and not torch.cuda.is_initialized() else "spawn"  # type: ignore[no-untyped-call]


def _cause(error: Exception, output: EngineOutput) -> str:
    """Return why an engine did not start, in one line: what its process said last, or how it ended."""
    told = output.cause()
    if told is None and "': -9}" in str(error):  # as vLLM tells of the exit status
        told = "its process was killed, probably for want of memory; see `winnow plan` for what it needs"
    reason = one_line(told or str(error)) or type(error).__name__
    if "trust_remote_code" in reason:
        return "it needs code from its repository, which is never run"
    return f"{reason}; `winnow serve --log-level debug` shows the engine's own output"


def _arguments(options: EngineOptions, **role: Any) -> AsyncEngineArgs:
    arguments: dict[str, Any] = {"load_format": options.load_format, **role}
    if options.execution == "graphs":
        arguments["compilation_config"] = DECODING_GRAPHS
    if options.on_gpu:
        arguments["gpu_memory_utilization"] = options.memory_share
        arguments["tensor_parallel_size"] = options.tensor_parallel
    else:
        # One process per engine: a worker process would spin between steps and starve its neighbours on few cores.
        arguments["distributed_executor_backend"] = "uni"
        # Prompts are prefilled whole: vLLM rewinds the generator of a seeded request after a chunked prefill, which a
        # CPU generator does not support, and the engine would die under load.
        arguments["enable_chunked_prefill"] = False
        if role["runner"] == "pooling":
            arguments["block_size"] = CPU_SCORING_BLOCK
        arguments["worker_cls"] = "winnow.models.engines.vllm_cpu_worker.InvariantCPUWorker"
    if options.kv_cache is not None:
        arguments["kv_cache_memory_bytes"] = options.kv_cache
    return AsyncEngineArgs(
        model=options.checkpoint,
        dtype=options.dtype,
        max_model_len=options.context,
        max_num_seqs=options.max_sequences,
        enforce_eager=options.execution == "eager",
        enable_prefix_caching=True,
        use_tqdm_on_load=False,
        **arguments,
    )
