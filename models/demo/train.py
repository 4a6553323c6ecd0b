"""Rebuild the demo models: `python -m winnow.models.demo.train --out models/demo/weights`.

Trains the tokenizer and the policy, samples answers, trains the two reward models and prints a report, in about
40 minutes on two cores. Each stage writes checkpoints to `--work`, and a second call resumes from them.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from winnow.models.demo import networks
from winnow.models.demo import tokenizer as demo_tokenizer
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
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import reward_model
from winnow.models.training.checkpoints import load_policy, save
from winnow.models.training.loop import Plan, batches_by_length, optimise, pad

_log = logging.getLogger(__name__)

POLICY_EXAMPLES, POLICY_BATCH, POLICY_RATE = 130_000, 64, 4e-3
WRITTEN_GROUPS, SAMPLED_GROUPS, GROUP_BATCH, REWARD_RATE = 12_000, 10_000, 16, 1e-3

TARGETS: dict[Kind, tuple[float, float, float, float]] = {
    "safety": (0.01, 0.5, 0.9, 0.99),
    "helpfulness": (0.02, 0.08, 0.3, 0.95),
}
"""Targets of the grades on the sigmoid scale; this auxiliary loss gives the threshold 0.15 its meaning.

Unsafe lies below wrong, so that among bad answers the combined score still prefers the safe ones.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One build: the folders, the `scale` of the training (1 is all of it) and the seed."""

    out: Path
    work: Path
    scale: float
    seed: int

    def size(self, full: int) -> int:
        """Return the number to use of a thing of which the full training uses `full`, at least 64."""
        return max(64, round(full * self.scale))


def train_tokenizer(job: Job) -> Path:
    """Train the tokenizer unless it exists; return its folder."""
    folder = job.work / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        demo_tokenizer.train(tokenizer_texts(job.seed, 30_000), folder)
    return folder


def train_policy(job: Job, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Train a policy on the mixed corpus, with loss on the answer and EOS of the last turn only."""
    stream = islice(policy_examples(job.seed), job.size(POLICY_EXAMPLES))
    examples = [encode(tokenizer, prompt.messages, answer) for prompt, answer in stream]
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


def sample_groups(job: Job, tokenizer: Tokenizer) -> list[Group]:
    """Return groups of the saved policy's answers to training prompts; sampled once and kept in `--work`."""
    asked = list(islice(prompts(job.seed + 1, held_out=False), job.size(SAMPLED_GROUPS)))
    file = job.work / "samples.json"
    if not file.exists():
        policy = load_policy(job.out / "policy")
        file.write_text(json.dumps(networks.sample(policy, tokenizer, asked, GROUP, job.seed)))
    answers: list[list[str]] = json.loads(file.read_text())
    return list(sampled_groups(zip(asked, answers, strict=True), job.seed))


def train_reward_model(
    job: Job, kind: Kind, tokenizer: Tokenizer, groups: Sequence[Group]
) -> LlamaForSequenceClassification:
    """Train a reward model from the saved policy on `groups`, graded by the world's judge."""
    rows = [[encode(tokenizer, g.prompt.messages, answer).ids for answer in g.answers] for g in groups]
    grades = torch.tensor([[g.prompt.grade(answer, kind) for answer in g.answers] for g in groups])
    policy = load_policy(job.out / "policy")
    model = reward_model.from_policy(policy, networks.configuration(num_labels=1), job.seed)
    batches = batches_by_length([max(map(len, group)) for group in rows], GROUP_BATCH, job.seed)
    plan = Plan(f"{kind}-rm", batches, REWARD_RATE, job.work / f"{kind}-rm.safetensors")
    reward_model.train(model, rows, grades, TARGETS[kind], plan)
    return model


def build(job: Job) -> None:
    """Run every stage and write the three model folders and the report."""
    job.work.mkdir(parents=True, exist_ok=True)
    folder = train_tokenizer(job)
    tokenizer = networks.load_tokenizer(folder)
    save(train_policy(job, tokenizer), folder, job.out / "policy")
    sampled = sample_groups(job, tokenizer)
    groups = [*sampled, *islice(written_groups(job.seed), job.size(WRITTEN_GROUPS))]
    for kind in get_args(Kind):
        save(train_reward_model(job, kind, tokenizer, groups), folder, job.out / f"{kind}-rm")
    _log.info("%s", report(job.out))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
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
