"""Encoder classifiers (BERT, RoBERTa, DeBERTa …), computed with transformers in this process; a `RewardModel`.

One thread computes batches, so that the event loop serves others meanwhile. Loading one imports torch and, on a
card, initialises CUDA: engines cannot be forked from this process afterwards, so encoders are started last. Small
models only; `winnow.models.engines.encoder_files` refuses others.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from winnow.models.engines.base import EngineOptions, PlainScorer, fitting_ids
from winnow.models.engines.encoder_files import Encoder
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.gathering import BatchThread, Request
from winnow.models.engines.process import CPU_NICENESS
from winnow.models.engines.transformers import load_encoder
from winnow.models.errors import EngineDead
from winnow.models.types import Prompt

CPU_BUDGET, GPU_BUDGET = 512, 4096
"""Padded tokens of a batch. On CPU more are slower; `docs/decisions.md` has the measurements."""


def start_reward_model(options: EngineOptions, encoder: Encoder, reader: EncoderInput) -> EncoderRewardModel:
    """Load an encoder into this process, on the card if there is one, and start its thread.

    Raises:
        CheckpointError: transformers cannot load the checkpoint.
    """
    if options.load_format == "dummy":
        config = AutoConfig.from_pretrained(options.checkpoint, num_labels=len(encoder.labels), trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_config(config, dtype=getattr(torch, options.dtype))
    else:
        model = load_encoder(options.checkpoint, options.dtype, len(encoder.labels))
    device = "cuda" if options.on_gpu else "cpu"
    context = min(options.context or encoder.context, encoder.context)
    return EncoderRewardModel(options.name, model.to(device).eval(), encoder, reader, context)


class EncoderRewardModel(PlainScorer):
    """Scores answers with an encoder on a thread of this process; a `ServedRewardModel`."""

    def __init__(self, name: str, model: PreTrainedModel, encoder: Encoder, reader: EncoderInput, context: int) -> None:
        self._name = name
        self._model: PreTrainedModel | None = model
        self._encoder = encoder
        self._input = reader
        self.context = context
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._device = model.device
        self._has_types = reader.has_types and getattr(model.config, "type_vocab_size", 0) > 1
        self._numbers = itertools.count()
        self._pending: dict[int, float] = {}
        """Times at which the requests came that have no score yet, oldest first."""
        self._last_batch = 0.0
        budget = CPU_BUDGET if self._device.type == "cpu" else GPU_BUDGET
        self._thread = BatchThread(name, self._scores, budget, lambda queued: len(self._pending) > queued, self._settle)

    @property
    def is_alive(self) -> bool:
        """Whether its thread computes."""
        return self._thread.is_alive

    @property
    def unfinished(self) -> int:
        """The number of requests without a score."""
        return len(self._pending)

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`."""
        number = next(self._numbers)
        self._pending[number] = time.monotonic()
        try:
            ids = await fitting_ids(self._input, prompt, answer, self.context, self._name)
            types = self._input.token_types(ids) if self._has_types else None
            return await asyncio.wrap_future(self._thread.submit(Request(ids, types)))
        finally:
            del self._pending[number]

    async def is_stuck(self, seconds: float) -> bool:
        """Whether scores are pending and no batch has been computed for `seconds`; see `EngineStatus.is_stuck`."""
        oldest = next(iter(self._pending.values()), None)
        return oldest is not None and time.monotonic() - max(oldest, self._last_batch) >= seconds

    def shutdown(self) -> None:
        """End the thread and free the memory; the model cannot be used afterwards."""
        self._thread.end()
        self._model = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _settle(self) -> None:
        """Give way to the server, whose event loop answers probes; as engines on CPU do in their own processes."""
        if self._device.type == "cpu":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), CPU_NICENESS)
            torch.set_num_threads(len(os.sched_getaffinity(0)))

    @torch.inference_mode()
    def _scores(self, batch: Sequence[Request]) -> list[float]:
        """Return the raw logit of each request of a batch, in one padded pass."""
        model = self._model
        if model is None:
            raise EngineDead(f"the {self._name} engine is gone")
        longest = max(len(request.ids) for request in batch)
        given: dict[str, Any] = {
            "input_ids": _padded([request.ids for request in batch], longest, model.config.pad_token_id or 0),
            "attention_mask": _padded([[1] * len(request.ids) for request in batch], longest, 0),
        }
        if self._has_types:
            given["token_type_ids"] = _padded([request.types or () for request in batch], longest, 0)
        try:
            outputs = model(**{name: tensor.to(self._device) for name, tensor in given.items()}).logits.float()
            logits: list[list[float]] = outputs.tolist()
        except torch.AcceleratorError as error:  # nothing can be computed on a card after one
            raise EngineDead(f"the {self._name} engine is gone: {str(error).splitlines()[0]}") from None
        self._last_batch = time.monotonic()
        return list(map(self._encoder.score, logits))


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> torch.Tensor:
    return torch.tensor([[*row, *([filler] * (length - len(row)))] for row in rows])
