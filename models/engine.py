"""vLLM, behind the protocols of `winnow.models.policy` and `winnow.models.reward`. Only this module starts and asks engines.

Three `AsyncLLM` engines live side by side, each with a process of its own: one samples, two pool. `start_policy` and
`start_reward_model` block, and must be called from the main thread before any event loop runs: engines are forked.
Call `winnow.models.environment.prepare` before this module is imported: vLLM and OpenMP read the environment as they load.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from winnow.models.errors import CandidateFailed, CandidateStopped, CheckpointError, EngineDead
from winnow.models.policy import Handle, Sampling, candidate_seed
from winnow.models.reward import Calibration, scored_ids
from winnow.models.template import END_INSTRUCTION, Llama2Template
from winnow.models.types import Candidate, Prompt, TokenLogprob

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What one engine needs to start.

    `context` None takes the checkpoint's own. `memory_share` is the share of a GPU's memory; on CPU it has no effect, and
    `kv_cache` (bytes) must be given. On a GPU the KV cache is what the share leaves, if `kv_cache` is None. `load_format` is vLLM's.
    `fork` is safe only while torch has computed nothing in this process: OpenMP's threads do not survive a fork, and the
    engine would wait for them forever.
    """

    checkpoint: str
    dtype: str
    context: int | None
    kv_cache: int | None
    memory_share: float | None
    max_sequences: int
    eager: bool
    load_format: str
    on_gpu: bool
    fork: bool


def start_policy(options: EngineOptions, template: Llama2Template) -> VllmPolicy:
    """Start the sampling engine.

    Raises:
        CheckpointError: vLLM could not load the checkpoint.
    """
    return VllmPolicy(_start(options, runner="generate"), template)


def start_reward_model(options: EngineOptions, name: str, eos_id: int, calibration: Calibration) -> VllmRewardModel:
    """Start a scoring engine; `name` says in errors and request ids which one it is.

    Raises:
        CheckpointError: vLLM could not load the checkpoint.
    """
    return VllmRewardModel(_start(options, runner="pooling", convert="classify"), name, eos_id, calibration)


def _start(options: EngineOptions, **role: Any) -> AsyncLLM:
    try:
        config = _arguments(options, **role).create_engine_config()
        if options.fork:
            # vLLM asks for spawned engines on CPU, each of which imports everything anew: 31 s to ready against 17 s.
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise CheckpointError(f"vLLM could not start an engine for {options.checkpoint}: {reason}") from error


def _arguments(options: EngineOptions, **role: Any) -> AsyncEngineArgs:
    arguments: dict[str, Any] = role
    if options.on_gpu:
        arguments["gpu_memory_utilization"] = options.memory_share
    else:
        # One process an engine: a worker process behind it spins between steps and starves its neighbours on few cores.
        arguments["distributed_executor_backend"] = "uni"
        # vLLM's runner rewinds the generator of a seeded request whose prefill was cut in parts, which a CPU generator cannot:
        # the engine would die under load. So prompts are prefilled whole.
        arguments["enable_chunked_prefill"] = False
        arguments["worker_cls"] = "winnow.models.cpu_worker.InvariantCPUWorker"
    if options.kv_cache is not None:
        arguments["kv_cache_memory_bytes"] = options.kv_cache
    return AsyncEngineArgs(
        model=options.checkpoint,
        dtype=options.dtype,
        load_format=options.load_format,
        max_model_len=options.context,
        max_num_seqs=options.max_sequences,
        enforce_eager=options.eager,
        enable_prefix_caching=True,
        use_tqdm_on_load=False,
        **arguments,
    )


class _Engine:
    """One started `AsyncLLM` with request ids of our own, and what it owes."""

    def __init__(self, llm: AsyncLLM, name: str) -> None:
        self.llm = llm
        self.name = name
        self.dtype = str(llm.model_config.dtype).removeprefix("torch.")
        self._ids = itertools.count()
        self._owed: dict[int, float] = {}
        """When each request that the engine owes was made, oldest first."""
        self._last_output = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the engine's process still runs."""
        return not self.llm.errored

    def next_id(self) -> str:
        """A request id that no other request of this engine has."""
        return f"{self.name}-{next(self._ids)}"

    @property
    def unfinished(self) -> int:
        """Requests that the engine's front end still holds; 0 when nothing runs, or something has leaked."""
        return int(self.llm.output_processor.get_num_unfinished_requests())

    def _silent_seconds(self) -> float:
        """How long the engine has owed what it owes and given nothing; 0 while it owes nothing."""
        oldest = next(iter(self._owed.values()), None)
        return 0.0 if oldest is None else time.monotonic() - max(oldest, self._last_output)

    async def _last(self, stream: AsyncIterator[T], look: Callable[[T], None] | None = None) -> T:
        """The last item of an engine's stream; its failures as ours. `look` sees every item."""
        owed = next(self._ids)
        self._owed[owed] = time.monotonic()
        last: T | None = None
        try:
            async for item in stream:
                last = item
                if look:
                    look(item)
            self._last_output = time.monotonic()
        except EngineDeadError as error:
            raise EngineDead(f"the {self.name} engine is gone") from error
        except EngineGenerateError as error:
            raise CandidateFailed(f"the {self.name} engine failed on a request") from error
        finally:
            del self._owed[owed]
        if last is None:
            raise CandidateFailed(f"the {self.name} engine returned nothing for a request")
        return last

    def shutdown(self) -> None:
        """End the engine's process and wait for it; the engine is of no use afterwards."""
        self.llm.shutdown()
        del self.llm  # its finaliser must not run while the interpreter is being torn down


class VllmPolicy(_Engine):
    """Samples candidates on a vLLM engine; a `Policy`."""

    def __init__(self, llm: AsyncLLM, template: Llama2Template) -> None:
        super().__init__(llm, "policy")
        self.template = template
        self.context: int = llm.model_config.max_model_len
        self.vocabulary: int = llm.model_config.get_vocab_size()

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Handle | None = None) -> Candidate:
        """Sample one candidate; see `Policy.sample`."""
        started = asyncio.get_running_loop().time()
        output = await self.generate(prompt, sampling, index, handle)
        if output.finish_reason == "abort" and handle and handle.is_stopped:
            raise CandidateStopped(len(output.token_ids))
        if output.finish_reason not in ("stop", "length"):
            raise CandidateFailed(f"the policy engine ended a candidate with {output.finish_reason!r}")
        text = self._text(prompt, output, sampling)
        cut = _cut(text, _own_stops(prompt, sampling))
        # The tokenizer's own spelling of the text, not the sampled one: an answer has one score, however it was spelt.
        spell = self.template.encode_continuation if prompt.is_raw else self.template.encode_answer
        return Candidate(
            index=index,
            token_ids=tuple(spell(cut)),
            text=cut,
            finish_reason="stop" if len(cut) < len(text) else output.finish_reason,
            tokens=len(output.token_ids),
            seconds=asyncio.get_running_loop().time() - started,
            logprobs=self._logprobs(output, sampling.alternatives),
        )

    async def generate(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: Handle | None = None
    ) -> CompletionOutput:
        """What vLLM itself returns for candidate `index`; raises as `sample` does."""
        parameters = _parameters(prompt, sampling, index)
        request_id, look = self.next_id(), None
        if handle:
            if handle.is_stopped:
                raise CandidateStopped(0)
            handle.abort = functools.partial(self.llm.abort, request_id)
            if handle.checkpoints:
                # The whole output after each step: only so can it be looked at on the way.
                parameters.output_kind = RequestOutputKind.CUMULATIVE
                look = _Lookout(handle)
        return (await self._last(self.llm.generate(_ready(prompt.token_ids), parameters, request_id), look)).outputs[0]

    def _text(self, prompt: Prompt, output: CompletionOutput, sampling: Sampling) -> str:
        """The answer's text. The dummy space that the tokenizer puts before a text is no part of an answer in a dialog."""
        if _engines_stops(prompt, sampling):
            # Cut at the stop string. vLLM decodes behind the prompt, where the dummy space is left in.
            return str(output.text) if prompt.is_raw else str(output.text).removeprefix(" ")
        decode = self.template.tokenizer.decode
        if not prompt.is_raw:
            return str(decode(output.token_ids, skip_special_tokens=True))
        # Behind a tag, for the same reason that an answer is encoded behind one.
        anchor = self.template.encode(END_INSTRUCTION)
        return str(decode([*anchor, *output.token_ids], skip_special_tokens=True)).removeprefix(END_INSTRUCTION)

    def _logprobs(self, output: CompletionOutput, alternatives: int | None) -> tuple[TokenLogprob, ...] | None:
        if alternatives is None:
            return None
        places = zip(output.token_ids, output.logprobs, strict=True)
        return tuple(
            _token_logprob(token, place, alternatives) for token, place in places if token != self.template.eos_id
        )

    async def is_stuck(self, seconds: float) -> bool:
        """Whether the engine answers nothing; see `Vitals.is_stuck`.

        A long answer is silent until its end, so the engine's loop itself is asked for a sign of life, which it gives
        between two steps, whatever its load.
        """
        if self._silent_seconds() < seconds:
            return False
        try:
            await asyncio.wait_for(self.llm.is_sleeping(), seconds)
        except TimeoutError:
            return True
        return False


def _ready(ids: Sequence[int]) -> dict[str, Any]:
    """Token ids in the form in which vLLM takes them as they are: any other is handed to a thread first, and back.

    Written out: the type's name and place in vLLM change from version to version, and one that does not know it passes over `type`.
    """
    return {"type": "token", "prompt_token_ids": list(ids)}


class _Lookout:
    """Tells a handle of the checkpoints that its candidate passes."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._passed = 0

    def __call__(self, output: RequestOutput) -> None:
        """See one more output; what has ended passes nothing any more."""
        checkpoints, tell = self._handle.checkpoints, self._handle.at_checkpoint
        ids = output.outputs[0].token_ids
        while not output.finished and self._passed < len(checkpoints) and len(ids) >= checkpoints[self._passed]:
            self._passed += 1
            if tell:
                tell(self._passed - 1, tuple(ids[: checkpoints[self._passed - 1]]))


def _token_logprob(token: int, place: Mapping[int, Logprob], alternatives: int) -> TokenLogprob:
    """The sampled token and the likeliest `alternatives`; vLLM lists the sampled one among them wherever it ranks."""
    ranked = sorted((value.rank, other, value.logprob) for other, value in place.items())
    return TokenLogprob(
        token, place[token].logprob, tuple((other, logprob) for _, other, logprob in ranked[:alternatives])
    )


def _own_stops(prompt: Prompt, sampling: Sampling) -> tuple[str, ...]:
    """Stop strings that are looked for here: in a dialog vLLM would find a leading space in the dummy space before the answer."""
    return () if prompt.is_raw else tuple(stop for stop in sampling.stop if stop.startswith(" "))


def _engines_stops(prompt: Prompt, sampling: Sampling) -> list[str]:
    """Stop strings that vLLM looks for as it decodes, and ends a candidate at."""
    own = _own_stops(prompt, sampling)
    return [stop for stop in sampling.stop if stop not in own]


def _cut(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of `stops` in it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _parameters(prompt: Prompt, sampling: Sampling, index: int) -> SamplingParams:
    stops = _engines_stops(prompt, sampling)
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=stops,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=sampling.logit_bias or None,
        seed=None if sampling.seed is None else candidate_seed(sampling.seed, index),
        logprobs=sampling.alternatives,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # Incremental detokenisation costs more than the engine's own front end; only a stop string needs it.
        detokenize=bool(stops),
    )


class VllmRewardModel(_Engine):
    """Scores answers on a vLLM pooling engine; a `RewardModel`."""

    def __init__(self, llm: AsyncLLM, name: str, eos_id: int, calibration: Calibration) -> None:
        super().__init__(llm, name)
        self.context: int = llm.model_config.max_model_len
        self._eos_id = eos_id
        self._calibration = calibration

    async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
        """Score one answer; see `RewardModel.score`."""
        ids = scored_ids(prompt, answer_ids, self._eos_id)
        if len(ids) > self.context:
            raise CandidateFailed(f"the answer does not fit the {self.name} model's context of {self.context} tokens")
        # Raw logits: vLLM would apply a sigmoid to a one-label classifier, and a second one would blind the gate.
        # Made anew, because vLLM writes into them; that costs a hundredth of copying them.
        parameters = PoolingParams(task="classify", use_activation=False)
        stream = self.llm.encode(_ready(ids), parameters, self.next_id())
        scores = (await self._last(stream)).outputs.data
        if scores.numel() != 1:
            raise CandidateFailed(f"the {self.name} reward model returned {scores.numel()} scores instead of one")
        return self._calibration(float(scores.item()))

    async def is_stuck(self, seconds: float) -> bool:
        """Whether it owes scores and has given none for `seconds`; see `Vitals.is_stuck`."""
        return self._silent_seconds() >= seconds
