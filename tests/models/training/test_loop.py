"""The training loop: its schedule, its batches, and runs that resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from winnow.models.training.loop import PAD, TOKENS, Plan, batches_by_length, optimise, pad, rate_at


def test_the_schedule_warms_up_and_ends_at_a_tenth() -> None:
    rates = [rate_at(step, 1_000, 1.0) for step in range(1_000)]
    assert max(rates) == rates[30] == 1.0
    assert rates[0] == pytest.approx(1 / 30)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_batches_by_length_hold_every_index_once() -> None:
    lengths = [index * 7 % 31 for index in range(1_000)]
    batches = batches_by_length(lengths, 16, 0)
    assert sorted(index for batch in batches for index in batch) == list(range(1_000))
    assert max(map(len, batches)) == 16


def test_a_batch_of_long_rows_has_fewer() -> None:
    lengths = [10] * 900 + [TOKENS // 4] * 100
    batches = batches_by_length(lengths, 16, 0)
    assert sorted(index for batch in batches for index in batch) == list(range(1_000))
    assert max(len(batch) * max(lengths[index] for index in batch) for batch in batches) <= TOKENS
    assert all(len(batch) == 1 for batch in batches_by_length([TOKENS + 1] * 3, 2, 0))


def test_rows_are_padded_on_the_right() -> None:
    assert pad([[5, 6, 7], [8]]).tolist() == [[5, 6, 7], [8, PAD, PAD]]


class Line(nn.Module):
    """A model with a matrix in `layers` and a vector outside, as the optimisers tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)])})
        self.scale = nn.Parameter(torch.ones(4))

    def loss(self, indices: Sequence[int]) -> Tensor:
        hidden: Tensor = self.trunk["layers"][0](torch.eye(4)[list(indices)])  # type: ignore[index]
        return ((hidden * self.scale - 1) ** 2).mean()


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.models.training.loop.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    batches = [[step % 4, (step + 1) % 4] for step in range(20)]
    whole, cut, resumed = Line(), Line(), Line()
    optimise(whole, Plan("whole", batches, 0.01, tmp_path / "whole.pt"), whole.loss)

    calls = iter(range(12))

    def failing(indices: Sequence[int]) -> Tensor:
        if next(calls) == 11:
            raise KeyboardInterrupt
        return cut.loss(indices)

    with pytest.raises(KeyboardInterrupt):
        optimise(cut, Plan("cut", batches, 0.01, tmp_path / "cut.pt"), failing)
    optimise(resumed, Plan("cut", batches, 0.01, tmp_path / "cut.pt"), resumed.loss)
    for key, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[key], atol=1e-6), key


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    model, checkpoint = Line(), tmp_path / "run.pt"
    optimise(model, Plan("short", [[0]], 0.01, checkpoint), model.loss)
    with pytest.raises(ValueError, match="another length"):
        optimise(model, Plan("long", [[0], [1]], 0.01, checkpoint), model.loss)
