"""The policy on a vLLM engine: candidates are sampled, cut at their ends, and spelled."""

from __future__ import annotations

import asyncio
import functools

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from winnow.models.engines.output import EngineOutput
from winnow.models.engines.sampled import AnswerReader, CheckpointWatcher, Sampled, end_ids
from winnow.models.engines.vllm_engine import VllmEngine, token_prompt
from winnow.models.engines.vllm_sampling import sampling_parameters, token_logprob
from winnow.models.errors import CandidateFailed, CandidateStopped
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt


class VllmPolicy(VllmEngine):
    """Samples candidates on a vLLM engine; a `Policy`."""

    def __init__(self, llm: AsyncLLM, output: EngineOutput, name: str, tokenizer: Tokenizer) -> None:
        super().__init__(llm, output, name)
        self.context: int = llm.model_config.max_model_len
        self.vocabulary: int = llm.model_config.get_vocab_size()
        ends = end_ids(llm.model_config.try_get_generation_config(), tokenizer.eos_id)
        self._reader = AnswerReader(tokenizer, ends)

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
        logprobs = None
        if (alternatives := sampling.alternatives) is not None:
            places = zip(output.token_ids, output.logprobs, strict=True)
            logprobs = [token_logprob(token, place, alternatives) for token, place in places]
        seconds = asyncio.get_running_loop().time() - started
        sampled = Sampled(output.token_ids, output.finish_reason, seconds, logprobs)
        return self._reader.candidate(prompt, sampling, index, sampled)

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
                watch = CheckpointWatcher(handle, lambda ids: self._reader.unfinished_text(prompt, sampling, ids))
                look = functools.partial(_look, watch)
        stream = self.llm.generate(token_prompt(prompt.token_ids), parameters, request_id)
        return (await self._last(stream, look)).outputs[0]

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


def _look(watch: CheckpointWatcher, output: RequestOutput) -> None:
    watch(output.outputs[0].token_ids, is_finished=output.finished)
