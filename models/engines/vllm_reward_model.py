"""A reward model on a vLLM pooling engine: token ids in, the head's numbers out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vllm.pooling_params import PoolingParams
from vllm.v1.engine.async_llm import AsyncLLM

from winnow.models.engines.base import CACHED_PROMPTS, AnswerReader, PromptReader, fitting_ids
from winnow.models.engines.heads import PLAIN, Head
from winnow.models.engines.output import EngineOutput
from winnow.models.engines.single_flight import SingleFlight
from winnow.models.engines.vllm_engine import VllmEngine, token_prompt
from winnow.models.errors import root_cause
from winnow.models.types import Prompt


class VllmRewardModel(VllmEngine):
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
        stream = self.llm.encode(token_prompt(ids), parameters, self.next_id())
        outputs: list[float] = (await self._last(stream)).outputs.data.flatten().tolist()
        return outputs

    async def is_stuck(self, seconds: float) -> bool:
        """Whether scores are pending and none has come for `seconds`; see `EngineStatus.is_stuck`."""
        return self._silent_seconds() >= seconds
