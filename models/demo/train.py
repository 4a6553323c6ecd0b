"""Training of the demo policy, on a corpus of good and bad answers. `make demo` trains the reward models after it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from winnow.models.demo import networks
from winnow.models.demo import tokenizer as demo_tokenizer
from winnow.models.demo.corpus import Encoded, encode, policy_examples, tokenizer_texts
from winnow.models.training.checkpoints import save
from winnow.models.training.loop import Plan, batches_by_length, optimise, pad

POLICY_EXAMPLES, POLICY_BATCH, POLICY_RATE = 150_000, 64, 4e-3


def train_policy(work: Path, seed: int, scale: float = 1.0) -> Path:
    """Train tokenizer and policy on `scale` of the corpus, unless `work` has them; return the policy's folder.

    The loss is on the answer and EOS of the last turn only. A second call goes on from the last checkpoint.
    """
    work.mkdir(parents=True, exist_ok=True)
    folder, tokenizer_folder = work / "policy", work / "tokenizer"
    if (folder / "tokenizer_config.json").exists():
        return folder
    if not (tokenizer_folder / "tokenizer_config.json").exists():
        demo_tokenizer.train(tokenizer_texts(seed, 30_000), tokenizer_folder)
    tokenizer = networks.load_tokenizer(tokenizer_folder)
    stream = islice(policy_examples(seed), max(64, round(POLICY_EXAMPLES * scale)))
    examples = [encode(tokenizer, prompt.messages, answer) for prompt, answer in stream]
    policy = networks.new_policy(seed)
    batches = batches_by_length([len(example.ids) for example in examples], POLICY_BATCH, seed)

    def loss_of(indices: Sequence[int]) -> Tensor:
        return _answer_loss(policy, [examples[index] for index in indices])

    optimise(policy, Plan("policy", batches, POLICY_RATE, work / "policy.safetensors"), loss_of)
    save(policy, tokenizer_folder, folder)
    return folder


def _answer_loss(policy: LlamaForCausalLM, batch: Sequence[Encoded]) -> Tensor:
    ids = pad([example.ids for example in batch])
    place = torch.arange(ids.shape[1])
    starts = torch.tensor([example.start for example in batch])[:, None]
    ends = torch.tensor([len(example.ids) for example in batch])[:, None]
    answer = (place >= starts) & (place < ends)
    hidden = policy.model(input_ids=ids).last_hidden_state[:, :-1]
    return functional.cross_entropy(policy.lm_head(hidden[answer[:, 1:]]), ids[answer])
