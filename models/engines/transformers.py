"""The reference of a reward model: one unpadded forward pass of transformers for each answer.

`winnow check` and the tests compare served scores with it. Slow on purpose: no batching, no cache. It may run on a
GPU, but only after the engines have been forked: it initialises CUDA in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Literal

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from winnow.models.engines.base import RewardInput
from winnow.models.engines.checkpoint import describe
from winnow.models.engines.hardware import ram
from winnow.models.engines.memory import GIB
from winnow.models.errors import CheckpointError
from winnow.models.types import Prompt

Precision = Literal["float32", "bfloat16", "float16"]


class ReferenceRewardModel:
    """Scores answers with transformers, in `dtype` on `device` ("cpu" or "cuda"); a `RewardModel`.

    The head computes in float32 in any precision, as vLLM's does. `close` frees the memory.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, has no trained head, or needs more memory than there is.
    """

    def __init__(
        self, checkpoint: str, reward_input: RewardInput, dtype: Precision = "float32", device: str = "cpu"
    ) -> None:
        self._input = reward_input
        self._dtype: Precision = dtype
        self._device = device
        with self._within_memory():
            _require_ram(checkpoint, dtype)
            self._model = _load(checkpoint, dtype).to(device).eval()
        # Score at the last token given: with a pad id, which is often EOS, transformers would search for another place.
        self._model.config.pad_token_id = None
        head = self._model.score
        head.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`.

        Raises:
            CheckpointError: the pass needs more memory than there is.
        """
        return await asyncio.to_thread(self._logit, self._input.token_ids(prompt, answer))

    def close(self) -> None:
        """Free the memory; the model cannot be used afterwards."""
        del self._model
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _logit(self, ids: list[int]) -> float:
        with torch.inference_mode(), self._within_memory():
            given = torch.tensor([ids], device=self._device)
            return float(self._model(input_ids=given, use_cache=False).logits[0, 0])

    @contextlib.contextmanager
    def _within_memory(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            # On a card torch.OutOfMemoryError; on CPU torch raises a RuntimeError that only its text tells from others.
            is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
            if not is_memory:
                raise
            place = "this machine's memory" if self._device == "cpu" else "the card"
            raise CheckpointError(
                f"the reference in {self._dtype} does not fit {place}; {_advice(self._dtype)}"
            ) from None


def _load(checkpoint: str, dtype: Precision) -> PreTrainedModel:
    disable_progress_bar()
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"reward model: transformers cannot load {checkpoint}: {_first_line(error)}") from error
    if missing := sorted(found["missing_keys"]):  # transformers makes up weights for them
        raise CheckpointError(f"reward model: {checkpoint} has no tensor {missing[0]}; the checkpoint is not complete")
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            f"reward model: {checkpoint}: {name} is {list(stored)}, but its config asks for {list(wanted)}"
        )
    loaded: PreTrainedModel = model
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_ram(checkpoint: str, dtype: Precision) -> None:
    """Check that the weights fit the memory, through which they reach a card as well.

    The kernel would end this process without a word.
    """
    needed, free = describe(checkpoint, "reward model", "reference", dtype).weights, ram().free
    if needed > free:
        raise CheckpointError(
            f"the reference in {dtype} needs {needed / GIB:.1f} GiB of this machine's memory, of which "
            f"{free / GIB:.1f} GiB are free; {_advice(dtype)}"
        )


def _advice(dtype: Precision) -> str:
    if dtype == "float32":
        return "use --reference-dtype bfloat16, which takes half, or end what else uses memory"
    return "end what else uses memory"
