"""Rows that sequences share: each is computed once, at one with the same tokens before it, and read by all."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.engines.shared_rows import WORTHWHILE, RowSharing, shared_rows

tokens = st.integers(0, 2)
sequences = st.lists(
    st.tuples(st.sampled_from([b"", b"\1\0\0\0", None]), st.lists(tokens, min_size=1, max_size=9)), min_size=1
)


@given(sequences)
def test_rows_are_shared_exactly_where_history_and_tokens_are_alike(
    given: list[tuple[bytes | None, list[int]]],
) -> None:
    histories = [history for history, _ in given]
    texts = [text for _, text in given]
    starts = [0, *itertools.accumulate(map(len, texts))]
    known = [
        (number if history is None else history, tuple(text[: place + 1]))
        for number, (history, text) in enumerate(given)
        for place in range(len(text))
    ]
    found = shared_rows(np.array(list(itertools.chain(*texts)), np.int32), starts, histories)
    if found is None:
        assert len(set(known)) > WORTHWHILE * len(known)
        return
    assert len(found.first) == len(set(known))
    assert [known[row] for row in found.first[found.source]] == known
    assert list(found.first) == sorted(found.first)


def test_ids_of_more_than_a_byte_are_compared_whole() -> None:
    """Sequences are sorted by their bytes, of which the first are the least significant."""
    texts = [[256, 7], [1, 7], [256, 8], [65_536 + 256, 7], [1, 7, 9]]
    starts = [0, *itertools.accumulate(map(len, texts))]
    found = shared_rows(np.array(list(itertools.chain(*texts)), np.int32), starts, [b""] * len(texts))
    assert found
    assert len(found.first) == 8
    assert list(found.source[:4]) == [0, 1, 2, 3]
    assert found.source[4] == found.source[0]
    assert list(found.source[8:10]) == [2, 3]


BLOCK = 4


class Attention:
    """A causal mean over each sequence's own rows; what stands before them is one number, known by its block."""

    layer_name = "layers.0"

    def __init__(self, step: SimpleNamespace) -> None:
        self._step = step

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        parts = []
        for (start, end), block in zip(itertools.pairwise(self._step.starts), self._step.blocks, strict=True):
            seen = (key[start:end] * value[start:end]).cumsum(0) + float(block or 0)
            parts.append(query[start:end] * seen / torch.arange(1, end - start + 1)[:, None])
        return torch.cat(parts)


class Model:
    """Two layers, each a map of single rows around attention; `computed` counts the rows of the last step."""

    def __init__(self, step: SimpleNamespace) -> None:
        self.layers = [SimpleNamespace(self_attn=SimpleNamespace(attn=Attention(step))) for _ in range(2)]
        self.computed = 0

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, *_: Any) -> torch.Tensor:
        self.computed = len(ids)
        rows = torch.stack([ids.double().sin(), positions.double().cos()], dim=1)
        for layer in self.layers:
            rows = rows + layer.self_attn.attn.forward(rows.sin(), rows.cos(), rows).tanh()
        return rows


steps = st.lists(st.tuples(st.sampled_from([None, 1, 2]), st.lists(st.integers(0, 2), min_size=1)), min_size=1)


@given(steps)
def test_a_shared_row_is_computed_once_and_read_by_all(given: list[tuple[int | None, list[int]]]) -> None:
    blocks, texts = [block for block, _ in given], [text for _, text in given]
    starts = [0, *itertools.accumulate(map(len, texts))]
    cached = [BLOCK if block else 0 for block in blocks]
    step = SimpleNamespace(starts=starts, blocks=blocks)
    attention = SimpleNamespace(
        query_start_loc=torch.tensor(starts),
        seq_lens=torch.tensor([len(text) + before for text, before in zip(texts, cached, strict=True)]),
        block_table=torch.tensor([[block or 0, 9] for block in blocks], dtype=torch.int32),
        max_query_len=max(map(len, texts)),
    )
    ids = torch.tensor([token for text in texts for token in text], dtype=torch.int32)
    positions = torch.tensor(
        [place + before for text, before in zip(texts, cached, strict=True) for place in range(len(text))]
    )
    whole, shared = Model(step), Model(step)
    sharing = RowSharing(shared, BLOCK, lambda: {Attention.layer_name: attention})
    assert torch.equal(shared.forward(ids, positions, None, None), whole.forward(ids, positions))
    distinct = {
        (block if len(text) > 1 else number, tuple(text[: place + 1]))
        for number, (block, text) in enumerate(given)
        for place in range(len(text))
    }
    assert shared.computed == len(ids) or shared.computed <= 0.9 * len(ids)
    assert shared.computed >= len(distinct)
    assert torch.equal(sharing.places(torch.arange(3)), torch.arange(3)), "nothing is shared outside of a step"


def test_a_warm_up_without_requests_shares_nothing() -> None:
    model = Model(SimpleNamespace(starts=[0, 2], blocks=[None]))
    RowSharing(model, BLOCK, lambda: None)
    assert len(model.forward(torch.tensor([1, 1]), torch.tensor([0, 1]))) == 2
    assert model.computed == 2
