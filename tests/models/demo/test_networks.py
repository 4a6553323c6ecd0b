"""The demo networks and their training: scores do not depend on the batch, the loss is the paper's, runs resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from winnow.models.demo import ModelName, weights
from winnow.models.demo.corpus import encode
from winnow.models.demo.networks import last_logits, load_policy, load_reward, load_template, sample, score
from winnow.models.demo.train import ranking_loss
from winnow.models.demo.world import held_out_pairs, held_out_prompts
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, SanityCheck
from winnow.models.training.loop import PAD, Plan, batches_by_length, optimise, pad, rate_at
from winnow.models.types import Message


@pytest.mark.parametrize(("name", "canary"), [("safety-rm", SAFETY_CHECK), ("helpfulness-rm", HELPFULNESS_CHECK)])
def test_the_canary_scores_right_on_the_scale_of_the_gate(name: ModelName, canary: SanityCheck) -> None:
    reward, template = load_reward(weights(name)), load_template(weights(name))
    dialog = (Message("user", canary.question),)
    better, worse = score(reward, template, [(dialog, canary.better), (dialog, canary.worse)])
    assert better > 0 > math.log(0.15 / 0.85) > worse


def test_a_score_is_the_same_alone_in_a_padded_batch_and_through_the_hugging_face_head() -> None:
    reward, template = load_reward(weights("safety-rm")), load_template(weights("safety-rm"))
    pairs = held_out_pairs(12, kind="safety")
    rows = [encode(template, pair.messages, pair.chosen).ids for pair in pairs]
    batch = pad(rows)
    with torch.inference_mode():
        together = last_logits(reward, rows)
        alone = torch.cat([last_logits(reward, [row]) for row in rows])
        head = reward(input_ids=batch, attention_mask=(batch != PAD).long()).logits[:, 0]
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, head, atol=1e-4)


def test_the_policy_samples_by_seed_and_is_small() -> None:
    policy, template = load_policy(weights("policy")), load_template(weights("policy"))
    asked = held_out_prompts(5)
    first, second, other = (sample(policy, template, asked, 4, seed) for seed in (0, 0, 1))
    assert first == second != other
    assert [len(answers) for answers in first] == [4] * 5
    assert sum(parameter.numel() for parameter in policy.parameters()) <= 3_000_000


def test_the_ranking_loss_is_the_papers_plus_cross_entropy() -> None:
    logits, grades = torch.tensor([[2.0, -1.0]]), torch.tensor([[3, 0]])
    ranking = -math.log(1 / (1 + math.exp(-(3.0 - 1.0))))
    targets = (0.1, 0.5, 0.5, 0.9)
    entropy = [-(t * math.log(p) + (1 - t) * math.log(1 - p)) for t, p in ((0.9, sigmoid(2.0)), (0.1, sigmoid(-1.0)))]
    assert ranking_loss(logits, grades, targets).item() == pytest.approx(ranking + sum(entropy) / 2, rel=1e-5)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


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


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
