"""The policy on a vLLM engine: candidates are sampled, cut at their ends, and spelled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from winnow.models.engines.output import EngineOutput
from winnow.models.engines.vllm_engine import VllmEngine, token_prompt
from winnow.models.engines.vllm_sampling import CheckpointWatcher, end_ids, sampling_parameters, token_logprob
from winnow.models.errors import CandidateFailed, CandidateStopped
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt, TokenLogprob


class VllmPolicy(VllmEngine):
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
        stream = self.llm.generate(token_prompt(prompt.token_ids), parameters, request_id)
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
