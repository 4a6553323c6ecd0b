"""Rows of a step that several sequences begin with: found once, so that they are computed once.

A step computes one row for each token of each sequence, and in a causal model rows with the same tokens before them and
at them are the same. The answers to one prompt, scored together, repeat it; vLLM's prefix cache shares only whole
blocks. In float32 each row has the same bits in any batch (`winnow.models.engines.vllm_cpu_worker`), so that a result
does not depend on what was shared. Nothing here imports vLLM.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]
WORTHWHILE = 0.9
"""Largest share of distinct rows at which gathering and spreading them saves time."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """The rows `first` [distinct] that are computed, and for each row of the step its place among them [rows]."""

    first: Rows
    source: Rows


def shared_rows(
    tokens: npt.NDArray[np.int32], starts: Sequence[int], histories: Sequence[bytes | None]
) -> SharedRows | None:
    """Return the distinct rows of a step; None if nearly all are.

    Args:
        tokens: those of all sequences, one after another [rows].
        starts: where each sequence's begin, and the number of rows at the end.
        histories: what stands before a sequence's tokens; sequences of equal histories are compared, None with none.
    """
    own = np.arange(len(tokens))
    source = own.copy()
    # In this order a sequence shares more with the one before it than with any earlier one.
    order = sorted(
        (history, tokens[start:end].tobytes(), start)
        for history, (start, end) in zip(histories, itertools.pairwise(starts), strict=True)
        if history is not None
    )
    for (history, before, earlier), (other, text, start) in itertools.pairwise(order):
        if history == other and (length := _common(before, text)):
            source[start : start + length] = source[earlier : earlier + length]
    is_own = source == own
    first = np.flatnonzero(is_own)
    if len(first) > WORTHWHILE * len(tokens):
        return None
    return SharedRows(first, (np.cumsum(is_own) - 1)[source])


def _common(before: bytes, text: bytes) -> int:
    """Return the number of tokens that two sequences begin with alike."""
    length = min(len(before), len(text)) // 4
    differs = np.frombuffer(before, np.int32, length) != np.frombuffer(text, np.int32, length)
    return int(differs.argmax()) if differs.any() else length


class RowSharing:
    """The forward passes of a Llama model of vLLM's and of its attention, changed so that a step shares rows.

    All but attention is computed for the distinct rows. Attention, with its queries, keys and values spread to all
    rows, reads and fills each sequence's own cache as ever. `metadata` returns that of the current step's attention, by
    layer (None: a warm-up without requests); the cache has blocks of `block` tokens.
    """

    def __init__(self, model: Any, block: int, metadata: Callable[[], Mapping[str, Any] | None]) -> None:
        self._block = block
        self._metadata = metadata
        self._layer = model.layers[0].self_attn.attn.layer_name
        self._first: torch.Tensor | None = None
        self._source: torch.Tensor | None = None
        for layer in model.layers:
            layer.self_attn.attn.forward = self._attention(layer.self_attn.attn.forward)
        model.forward = self._model(model.forward)

    def places(self, rows: torch.Tensor) -> torch.Tensor:
        """Return where the step's `rows` are computed, which nothing but attention sees whole."""
        return rows if self._source is None else self._source[rows]

    def _model(self, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def shared(ids: torch.Tensor, positions: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
            if (found := self._found(ids)) is None:
                return forward(ids, positions, *others, **named)
            self._first, self._source = torch.from_numpy(found.first), torch.from_numpy(found.source)
            try:
                return forward(ids[self._first], positions[self._first], *others, **named)[self._source]
            finally:
                self._first = self._source = None

        return shared

    def _attention(self, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def spread(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *others: Any) -> torch.Tensor:
            if self._first is None:
                return forward(query, key, value, *others)
            return forward(*(part[self._source] for part in (query, key, value)), *others)[self._first]

        return spread

    def _found(self, ids: torch.Tensor | None) -> SharedRows | None:
        if (metadata := self._metadata()) is None or ids is None:
            return None
        attention = metadata[self._layer]
        if attention.max_query_len == 1:
            return None
        starts: list[int] = attention.query_start_loc.tolist()
        histories = [
            self._history(blocks, length - (end - start)) if end - start > 1 else None
            for blocks, length, (start, end) in zip(
                attention.block_table, attention.seq_lens.tolist(), itertools.pairwise(starts), strict=True
            )
        ]
        return shared_rows(ids.numpy().astype(np.int32), starts, histories)

    def _history(self, blocks: torch.Tensor, cached: int) -> bytes:
        """Return what a sequence's `cached` tokens are known by: the blocks of the cache that hold them."""
        return blocks[: -(-cached // self._block)].numpy().tobytes() if cached else b""
