"""Rebuild the demo models: `python -m winnow.models.demo.train --out models/demo/weights`.

Tokenizer, policy, answers sampled from it, safety and helpfulness reward models, report; about 40 minutes on two cores.
Each stage checkpoints into `--work` and a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo import networks, tokenizer
from winnow.models.demo.corpus import (
    GROUP,
    Example,
    Group,
    encode,
    policy_examples,
    sampled_groups,
    tokenizer_texts,
    written_groups,
)
from winnow.models.demo.report import report
from winnow.models.demo.world import Kind, prompts
from winnow.models.training.loop import Plan, batches_by_length, optimise, pad

_log = logging.getLogger(__name__)

POLICY_EXAMPLES, POLICY_BATCH, POLICY_RATE = 130_000, 64, 4e-3
WRITTEN_GROUPS, SAMPLED_GROUPS, GROUP_BATCH, REWARD_RATE = 12_000, 10_000, 16, 1e-3

TARGETS: dict[Kind, tuple[float, float, float, float]] = {
    "safety": (0.01, 0.5, 0.9, 0.99),
    "helpfulness": (0.02, 0.08, 0.3, 0.95),
}
"""Where each grade should lie on the sigmoid scale: the auxiliary loss that gives the threshold 0.15 its meaning.

Unsafe lies below wrong, so that among only bad answers the combined score still prefers the safe ones.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """Where to write, how much of the full training to do, and from which seed."""

    out: Path
    work: Path
    scale: float
    seed: int

    def size(self, full: int) -> int:
        """The scaled count of something of which full training takes `full`."""
        return max(64, round(full * self.scale))


def train_tokenizer(job: Job) -> Path:
    """Train the tokenizer unless it is there; returns its folder."""
    folder = job.work / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        tokenizer.train(tokenizer_texts(job.seed, 30_000), folder)
    return folder


def train_policy(job: Job, template: Llama2Template) -> LlamaForCausalLM:
    """Next-token training on the mixed corpus, with loss on the answer and EOS of the last turn only."""
    stream = islice(policy_examples(job.seed), job.size(POLICY_EXAMPLES))
    examples = [encode(template, prompt.messages, answer) for prompt, answer in stream]
    policy = networks.new_policy(job.seed)
    batches = batches_by_length([len(example.ids) for example in examples], POLICY_BATCH, job.seed)

    def loss_of(indices: Sequence[int]) -> Tensor:
        return _answer_loss(policy, [examples[index] for index in indices])

    optimise(policy, Plan("policy", batches, POLICY_RATE, job.work / "policy.safetensors"), loss_of)
    return policy


def _answer_loss(policy: LlamaForCausalLM, batch: Sequence[Example]) -> Tensor:
    ids = pad([example.ids for example in batch])
    place = torch.arange(ids.shape[1])
    starts = torch.tensor([example.start for example in batch])[:, None]
    ends = torch.tensor([len(example.ids) for example in batch])[:, None]
    answer = (place >= starts) & (place < ends)
    hidden = policy.model(input_ids=ids).last_hidden_state[:, :-1]
    return functional.cross_entropy(policy.lm_head(hidden[answer[:, 1:]]), ids[answer])


def sample_groups(job: Job, template: Llama2Template) -> list[Group]:
    """Groups of the exported policy's own answers to training prompts; sampled once and kept in `--work`."""
    asked = list(islice(prompts(job.seed + 1, held_out=False), job.size(SAMPLED_GROUPS)))
    file = job.work / "samples.json"
    if not file.exists():
        policy = networks.load_policy(job.out / "policy")
        file.write_text(json.dumps(networks.sample(policy, template, asked, GROUP, job.seed)))
    answers: list[list[str]] = json.loads(file.read_text())
    return list(sampled_groups(zip(asked, answers, strict=True), job.seed))


def train_reward(
    job: Job, kind: Kind, template: Llama2Template, groups: Sequence[Group]
) -> LlamaForSequenceClassification:
    """Ranking loss with small margins over all pairs of a group, plus the auxiliary loss on the grades."""
    rows = [[encode(template, g.prompt.messages, answer).ids for answer in g.answers] for g in groups]
    grades = torch.tensor([[g.prompt.grade(answer, kind) for answer in g.answers] for g in groups])
    reward = networks.reward_from(networks.load_policy(job.out / "policy"), job.seed)
    batches = batches_by_length([max(map(len, group)) for group in rows], GROUP_BATCH, job.seed)

    def loss_of(indices: Sequence[int]) -> Tensor:
        flat = list(chain.from_iterable(rows[index] for index in indices))
        return ranking_loss(networks.last_logits(reward, flat).view(-1, GROUP), grades[list(indices)], TARGETS[kind])

    optimise(reward, Plan(f"{kind}-rm", batches, REWARD_RATE, job.work / f"{kind}-rm.safetensors"), loss_of)
    return reward


def ranking_loss(logits: Tensor, grades: Tensor, targets: Sequence[float]) -> Tensor:
    """−log σ(r_c − r_r − m) over the pairs of each row, m the grades' gap / 3, plus cross-entropy towards `targets`.

    `logits` and `grades` have shape [groups, answers]; grades are 0 to 3, so m is 1, 2/3 or 1/3 (small margin).
    """
    gap = grades[:, :, None] - grades[:, None, :]
    lead = logits[:, :, None] - logits[:, None, :] - gap / 3
    ranked = gap > 0
    ranking = -(functional.logsigmoid(lead) * ranked).sum() / ranked.sum().clamp(min=1)
    return ranking + functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets)[grades])


def build(job: Job) -> None:
    """Run every stage and write the three model folders and the report."""
    job.work.mkdir(parents=True, exist_ok=True)
    folder = train_tokenizer(job)
    template = networks.load_template(folder)
    networks.export(train_policy(job, template), folder, job.out / "policy")
    sampled = sample_groups(job, template)
    groups = [*sampled, *islice(written_groups(job.seed), job.size(WRITTEN_GROUPS))]
    for kind in get_args(Kind):
        networks.export(train_reward(job, kind, template, groups), folder, job.out / f"{kind}-rm")
    _log.info("%s", report(job.out))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="winnow.models.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for policy/, safety-rm/, helpfulness-rm/")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for checkpoints (build/demo)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full training; small for a trial (1.0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    build(Job(options.out, options.work, options.scale, options.seed))


if __name__ == "__main__":
    main()
