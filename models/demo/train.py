"""Rebuild the demo models: `python -m winnow.models.demo.train --out models/demo/weights`.

Trains a policy on a corpus of good and bad answers, then both reward models as `winnow rm train` does, in rounds on the
policy's own answers; see `rounds`. Each stage keeps its files in `--work`, and a second call goes on from them.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from winnow.models.demo import networks
from winnow.models.demo import tokenizer as demo_tokenizer
from winnow.models.demo.corpus import Encoded, encode, policy_examples, tokenizer_texts
from winnow.models.demo.rounds import Rounds
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.training.checkpoints import save
from winnow.models.training.loop import Plan, batches_by_length, optimise, pad

POLICY_EXAMPLES, POLICY_BATCH, POLICY_RATE = 150_000, 64, 4e-3


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


def _answer_loss(policy: LlamaForCausalLM, batch: Sequence[Encoded]) -> Tensor:
    ids = pad([example.ids for example in batch])
    place = torch.arange(ids.shape[1])
    starts = torch.tensor([example.start for example in batch])[:, None]
    ends = torch.tensor([len(example.ids) for example in batch])[:, None]
    answer = (place >= starts) & (place < ends)
    hidden = policy.model(input_ids=ids).last_hidden_state[:, :-1]
    return functional.cross_entropy(policy.lm_head(hidden[answer[:, 1:]]), ids[answer])


def build(job: Job) -> None:
    """Run every stage; write the three model folders, and the figures of each round to `rounds.json` in `--work`."""
    job.work.mkdir(parents=True, exist_ok=True)
    folder = train_tokenizer(job)
    tokenizer = networks.load_tokenizer(folder)
    save(train_policy(job, tokenizer), folder, job.out / "policy")
    models, figures = Rounds(job.out / "policy", tokenizer, job.work, job.scale, job.seed).run()
    (job.work / "rounds.json").write_text(json.dumps([found.as_dict() for found in figures], indent=1) + "\n")
    for kind, trained in models.items():
        classifier.save(classifier.load(trained, job.seed), trained, job.out / f"{kind}-rm")


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
