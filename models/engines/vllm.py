"""vLLM behind the protocols of `winnow.models.policy` and `winnow.models.reward_model`.

Each engine is an `AsyncLLM` with a process of its own; a policy samples, a reward model pools. Starting
one blocks, and must be done from the main thread before any event loop runs: engines are forked where they can be.
Call `winnow.models.engines.environment.prepare` before this module is imported: vLLM and OpenMP read
the environment as they load.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import CompletionOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from winnow.models.engines import vllm_loader
from winnow.models.engines.base import CACHED_PROMPTS, AnswerReader, EngineOptions, PromptReader, fitting_ids
from winnow.models.engines.environment import START_METHOD
from winnow.models.engines.heads import PLAIN, Head
from winnow.models.engines.output import EngineOutput
from winnow.models.engines.process import Attachment
from winnow.models.engines.single_flight import SingleFlight
from winnow.models.engines.vllm_process import attached
from winnow.models.engines.vllm_sampling import CheckpointWatcher, end_ids, sampling_parameters, token_logprob
from winnow.models.errors import CandidateFailed, CandidateStopped, CheckpointError, EngineDead, root_cause
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt, TokenLogprob

T = TypeVar("T")
logger = logging.getLogger(__name__)

DECODING_GRAPHS = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
"""vLLM's compilation: none, but whole decoding steps as CUDA graphs."""
MAX_REASON = 400
"""Characters of an engine's own error that are shown."""


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
            os.environ[START_METHOD] = _start_method(options)
            with attached(Attachment.to_this_process(on_gpu=options.on_gpu)):
                return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"vLLM could not start the {options.name} engine on {options.checkpoint}: {_cause(error, output)}"
        ) from error


def _start_method(options: EngineOptions) -> str:
    """Return vLLM's start method. A spawned engine imports everything again: 31 s for three on CPU instead of 17 s."""
    return "fork" if options.fork and not torch.cuda.is_initialized() else "spawn"  # type: ignore[no-untyped-call]


def _cause(error: Exception, output: EngineOutput) -> str:
    """Return why an engine did not start, in one line: what its process said last, or how it ended."""
    told = output.cause()
    if told is None and "': -9}" in str(error):  # as vLLM tells of the exit status
        told = "its process was killed, probably for want of memory; see `winnow plan` for what it needs"
    reason = _one_line(told or str(error)) or type(error).__name__
    if "trust_remote_code" in reason:
        return "it needs code from its repository, which is never run"
    return f"{reason}; `winnow serve --log-level debug` shows the engine's own output"


def _gone(name: str, output: EngineOutput) -> str:
    """Return that an engine has died, and of what if it had not answered before."""
    told = output.cause()
    return f"the {name} engine is gone" + (f": {_one_line(told)}" if told else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON].rstrip(".")


def _arguments(options: EngineOptions, **role: Any) -> AsyncEngineArgs:
    arguments: dict[str, Any] = {"load_format": options.load_format, **role}
    if options.execution == "graphs":
        arguments["compilation_config"] = DECODING_GRAPHS
    if options.on_gpu:
        arguments["gpu_memory_utilization"] = options.memory_share
    else:
        # One process per engine: a worker process would spin between steps and starve its neighbours on few cores.
        arguments["distributed_executor_backend"] = "uni"
        # Prompts are prefilled whole: vLLM rewinds the generator of a seeded request after a chunked prefill, which a
        # CPU generator does not support, and the engine would die under load.
        arguments["enable_chunked_prefill"] = False
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


class _Engine:
    """One started `AsyncLLM`, its request ids and its pending requests."""

    def __init__(self, llm: AsyncLLM, output: EngineOutput, name: str) -> None:
        self.llm = llm
        self.name = name
        self._output = output
        self.dtype = str(llm.model_config.dtype).removeprefix("torch.")
        self._ids = itertools.count()
        self._pending: dict[int, float] = {}
        """Submission times of the requests without an output, oldest first."""
        self._last_output = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the engine's process still runs."""
        return not self.llm.errored

    def next_id(self) -> str:
        """Return a request id that no other request of this engine has."""
        return f"{self.name}-{next(self._ids)}"

    @property
    def unfinished(self) -> int:
        """Requests that the engine's front end still holds; 0 when nothing runs, or something has leaked."""
        return int(self.llm.output_processor.get_num_unfinished_requests())

    def _silent_seconds(self) -> float:
        """Return the seconds since the engine's last output while requests are pending; 0 while none is."""
        oldest = next(iter(self._pending.values()), None)
        return 0.0 if oldest is None else time.monotonic() - max(oldest, self._last_output)

    async def _last(self, stream: AsyncIterator[T], look: Callable[[T], None] | None = None) -> T:
        """Return the last item of an engine's stream, calling `look` with every item; translate vLLM's errors."""
        pending = next(self._ids)
        self._pending[pending] = time.monotonic()
        last: T | None = None
        try:
            async for item in stream:
                last = item
                if look:
                    look(item)
            self._last_output = time.monotonic()
            self._output.go_live()
        except EngineDeadError as error:
            self._output.end()
            raise EngineDead(_gone(self.name, self._output)) from error
        except EngineGenerateError as error:
            raise CandidateFailed(f"the {self.name} engine failed on a request") from error
        finally:
            del self._pending[pending]
        if last is None:
            raise CandidateFailed(f"the {self.name} engine returned nothing for a request")
        return last

    def shutdown(self) -> None:
        """End the engine's process and wait for it; the engine cannot be used afterwards."""
        self.llm.shutdown()
        del self.llm  # its finaliser must not run while the interpreter shuts down


class VllmPolicy(_Engine):
    """Samples candidates on a vLLM engine; a `Policy`."""

    def __init__(self, llm: AsyncLLM, output: EngineOutput, name: str, tokenizer: Tokenizer) -> None:
        super().__init__(llm, output, name)
        self._tokenizer = tokenizer
        self.context: int = llm.model_config.max_model_len
        self.vocabulary: int = llm.model_config.get_vocab_size()
        self._end_ids = end_ids(llm.model_config.try_get_generation_config(), tokenizer.eos_id)

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        """Sample one candidate; see `Policy.sample`."""
        started = asyncio.get_running_loop().time()
        output = await self.generate(prompt, sampling, index, handle)
        if output.finish_reason == "abort" and handle and handle.is_stopped:
            raise CandidateStopped(len(output.token_ids))
        if output.finish_reason not in ("stop", "length"):
            raise CandidateFailed(f"the policy engine ended a candidate with {output.finish_reason!r}")
        ids = self._without_end(output)
        text = self._answer_text(prompt, ids)
        answer = self._cut(text, prompt, sampling, ids)
        return Candidate(
            index=index,
            text=answer,
            finish_reason="stop" if len(answer) < len(text) else output.finish_reason,
            tokens=len(output.token_ids),
            seconds=asyncio.get_running_loop().time() - started,
            logprobs=self._logprobs(output, sampling.alternatives),
        )

    async def generate(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> CompletionOutput:
        """Return vLLM's own output for candidate `index`; raises as `sample` does."""
        parameters = sampling_parameters(prompt, sampling, index)
        request_id, look = self.next_id(), None
        if handle:
            if handle.is_stopped:
                raise CandidateStopped(0)
            handle.abort = functools.partial(self.llm.abort, request_id)
            if handle.checkpoints:
                # The whole output after each step, so that the watcher can read it.
                parameters.output_kind = RequestOutputKind.CUMULATIVE
                look = CheckpointWatcher(
                    handle, lambda ids: self._cut(self._answer_text(prompt, ids), prompt, sampling, ids)
                )
        stream = self.llm.generate(_token_prompt(prompt.token_ids), parameters, request_id)
        return (await self._last(stream, look)).outputs[0]

    def _without_end(self, output: CompletionOutput) -> Sequence[int]:
        """Return the ids of an answer without the one that ended it, which need not be a control id."""
        ids: Sequence[int] = output.token_ids
        return ids[:-1] if output.finish_reason == "stop" and ids and ids[-1] in self._end_ids else ids

    def _answer_text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """Return the text of `ids` sampled after `prompt`, without the answer prefix."""
        return self._tokenizer.decode_continuation(ids).removeprefix(prompt.answer_prefix)

    def _cut(self, text: str, prompt: Prompt, sampling: Sampling, ids: Sequence[int]) -> str:
        """Return an answer's text, which `ids` spell, up to the first stop string or tag of the template in it.

        All are looked for here, in one spelling of the text, whether or not vLLM has ended the candidate for one. As
        there, a stop string that is complete within the first `min_tokens` tokens does not count.
        """
        first = len(self._answer_text(prompt, ids[: sampling.min_tokens]))
        stops = (text.find(stop, max(0, first + 1 - len(stop))) for stop in sampling.stop)
        return text[: min((at for at in (*stops, *map(text.find, prompt.tags)) if at >= 0), default=len(text))]

    def _logprobs(self, output: CompletionOutput, alternatives: int | None) -> tuple[TokenLogprob, ...] | None:
        if alternatives is None:
            return None
        places = zip(output.token_ids, output.logprobs, strict=True)
        return tuple(token_logprob(token, place, alternatives) for token, place in places if token not in self._end_ids)

    async def is_stuck(self, seconds: float) -> bool:
        """Whether the engine hangs; see `EngineStatus.is_stuck`.

        A long answer gives no output until its end, so the engine's loop itself is probed: under any load
        it responds between two steps.
        """
        if self._silent_seconds() < seconds:
            return False
        try:
            await asyncio.wait_for(self.llm.is_sleeping(), seconds)
        except TimeoutError:
            return True
        return False


def _token_prompt(ids: Sequence[int]) -> dict[str, Any]:
    """Return token ids in the form that vLLM takes directly; any other goes through a thread first.

    A plain dictionary: the type's name and module change from version to version, and a version without
    it ignores `type`.
    """
    return {"type": "token", "prompt_token_ids": list(ids)}


class VllmRewardModel(_Engine):
    """Scores answers on a vLLM pooling engine; a `RewardModel`."""

    def __init__(
        self, llm: AsyncLLM, output: EngineOutput, name: str, reward_input: AnswerReader, head: Head = PLAIN
    ) -> None:
        super().__init__(llm, output, name)
        self.context: int = llm.model_config.max_model_len
        self._input = reward_input
        self._head = head
        self._shared = SingleFlight(self._pooled, CACHED_PROMPTS)

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`.

        What a head reads of the prompt, it reads once for all answers: by then their prefix cache has passed it.
        """
        ids = await self._ids_of(prompt, answer)
        if (before := self._head.shared_ids(ids)) is None:
            return self._head.score(await self._pooled(ids))
        if (shared := self._shared.known(before)) is not None:
            return self._head.score(await self._pooled(ids), shared)
        try:
            async with asyncio.TaskGroup() as group:
                first, own = group.create_task(self._shared(before)), group.create_task(self._pooled(ids))
        except ExceptionGroup as failures:
            raise root_cause(failures) from None
        return self._head.score(own.result(), first.result())

    async def forget_prefixes(self) -> None:
        """Drop the prefix cache; see `ServedRewardModel.forget_prefixes`."""
        self._shared.forget()
        await self.llm.reset_prefix_cache()

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        """Return the probability of the two label tokens; see `ServedRewardModel.label_mass`."""
        return self._head.label_mass(await self._pooled(await self._ids_of(prompt, answer)))

    async def verdict(self, prompt: Prompt) -> float:
        """Return the raw logit behind the prompt alone; see `GuardModel.verdict`."""
        assert isinstance(self._input, PromptReader), "only a model of label tokens judges prompts"
        return self._head.score(
            await self._pooled(await asyncio.to_thread(self._input.prompt_ids, prompt, self.context))
        )

    async def _ids_of(self, prompt: Prompt, answer: str) -> list[int]:
        return await fitting_ids(self._input, prompt, answer, self.context, self.name)

    async def _pooled(self, ids: Sequence[int]) -> list[float]:
        """Return the head's numbers at the last of `ids`."""
        # Raw logits: vLLM would apply a sigmoid to a one-label classifier, and the pipeline would apply a second one.
        # New parameters for each call, because vLLM writes into them; copying would take a hundred times as long.
        parameters = PoolingParams(task="classify", use_activation=False)
        stream = self.llm.encode(_token_prompt(ids), parameters, self.next_id())
        outputs: list[float] = (await self._last(stream)).outputs.data.flatten().tolist()
        return outputs

    async def is_stuck(self, seconds: float) -> bool:
        """Whether scores are pending and none has come for `seconds`; see `EngineStatus.is_stuck`."""
        return self._silent_seconds() >= seconds
