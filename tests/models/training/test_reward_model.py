"""Training of reward models: the paper's loss, scores that do not depend on the batch, and a trunk from the policy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from winnow.models.demo import weights
from winnow.models.demo.corpus import encode
from winnow.models.demo.networks import configuration
from winnow.models.demo.world import held_out_pairs
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.checkpoints import load_policy, load_reward_model
from winnow.models.training.loop import PAD, Plan, pad
from winnow.models.training.reward_model import from_policy, last_logits, ranking_loss, train
from winnow.models.types import sigmoid

TARGETS = (0.1, 0.5, 0.5, 0.9)


def test_the_ranking_loss_is_the_papers_plus_cross_entropy() -> None:
    logits, grades = torch.tensor([[2.0, -1.0]]), torch.tensor([[3, 0]])
    ranking = -math.log(1 / (1 + math.exp(-(3.0 - 1.0))))
    entropy = [-(t * math.log(p) + (1 - t) * math.log(1 - p)) for t, p in ((0.9, sigmoid(2.0)), (0.1, sigmoid(-1.0)))]
    assert ranking_loss(logits, grades, TARGETS).item() == pytest.approx(ranking + sum(entropy) / 2, rel=1e-5)


def test_a_score_is_the_same_alone_in_a_padded_batch_and_through_the_hugging_face_head(tokenizer: Tokenizer) -> None:
    model = load_reward_model(weights("safety-rm"))
    rows = [encode(tokenizer, pair.messages, pair.chosen).ids for pair in held_out_pairs(12, kind="safety")]
    batch = pad(rows)
    with torch.inference_mode():
        together = last_logits(model, rows)
        alone = torch.cat([last_logits(model, [row]) for row in rows])
        head = model(input_ids=batch, attention_mask=(batch != PAD).long()).logits[:, 0]
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, head, atol=1e-4)


def test_training_from_the_policy_learns_the_grades(tokenizer: Tokenizer, tmp_path: Path) -> None:
    policy = load_policy(weights("policy"))
    model = from_policy(policy, configuration(num_labels=1), seed=0)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, policy.model.layers[0].mlp.up_proj.weight)
    pairs = held_out_pairs(8, kind="safety")
    groups = [
        [encode(tokenizer, pair.messages, answer).ids for answer in (pair.chosen, pair.rejected)] for pair in pairs
    ]
    grades = torch.tensor([[3, 0]] * len(pairs))
    plan = Plan("rm", [list(range(8))] * 12, 1e-3, tmp_path / "rm.safetensors")

    def loss() -> float:
        with torch.inference_mode():
            logits = last_logits(model, [row for group in groups for row in group]).view(len(pairs), 2)
            return ranking_loss(logits, grades, TARGETS).item()

    before = loss()
    train(model, groups, grades, TARGETS, plan)
    assert loss() < before / 2
