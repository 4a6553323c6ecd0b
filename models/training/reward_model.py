"""Training of a reward model, a policy's trunk with a one-logit head, on graded answers (Llama 2, 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from winnow.models.training.loop import Plan, optimise, pad


def from_policy(policy: LlamaForCausalLM, config: LlamaConfig, seed: int) -> LlamaForSequenceClassification:
    """Return a reward model of shape `config` (one label) with the trunk of `policy` and a new head."""
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(policy.model.state_dict())
    return model


def last_logits(model: LlamaForSequenceClassification, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the head's logit at the last token of each row, which is EOS; shape [rows]."""
    hidden = model.model(input_ids=pad(rows)).last_hidden_state
    last = torch.tensor([len(row) - 1 for row in rows])
    logits: Tensor = model.score(hidden[torch.arange(len(rows)), last])[:, 0]
    return logits


def ranking_loss(logits: Tensor, grades: Tensor, targets: Sequence[float]) -> Tensor:
    """Return the mean −log σ(r_c − r_r − m) over all pairs, plus the cross-entropy towards `targets`.

    Args:
        logits: [groups, answers].
        grades: [groups, answers], from 0 to 3. The margin m is the gap of two grades / 3: 1, 2/3 or 1/3 (small margin).
        targets: each grade's place on the sigmoid scale, in (0, 1).
    """
    gap = grades[:, :, None] - grades[:, None, :]
    lead = logits[:, :, None] - logits[:, None, :] - gap / 3
    ranked = gap > 0
    ranking = -(functional.logsigmoid(lead) * ranked).sum() / ranked.sum().clamp(min=1)
    return ranking + functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets)[grades])


def train(
    model: LlamaForSequenceClassification,
    groups: Sequence[Sequence[Sequence[int]]],
    grades: Tensor,
    targets: Sequence[float],
    plan: Plan,
) -> None:
    """Train `model` on groups of graded answers.

    `groups` holds the token ids of each answer to one prompt, the prompt and EOS included; see
    `ranking_loss` for `grades` and `targets`.
    """

    def loss_of(indices: Sequence[int]) -> Tensor:
        rows = list(chain.from_iterable(groups[index] for index in indices))
        return ranking_loss(last_logits(model, rows).view(len(indices), -1), grades[list(indices)], targets)

    optimise(model, plan, loss_of)
