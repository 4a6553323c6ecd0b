"""The demo networks: their configuration, the answers of a policy, and the scores of a reward model.

Everything here is plain transformers, so that the served results can be checked against an independent path.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from winnow.models.demo.corpus import TEMPLATE, encode
from winnow.models.demo.tokenizer import CONTEXT, VOCABULARY
from winnow.models.demo.world import DemoPrompt
from winnow.models.engines import checkpoint
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.training.loop import PAD
from winnow.models.types import Message

_log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 64
_BATCH = 256


def configuration(**extra: int) -> LlamaConfig:
    """Return the configuration of all three networks: 1.6 million parameters, of which 0.3 are embeddings."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=160, intermediate_size=432, num_hidden_layers=4, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=CONTEXT, tie_word_embeddings=True, initializer_range=0.06,
        bos_token_id=1, eos_token_id=2, pad_token_id=PAD, **extra,
    )  # fmt: skip


def new_policy(seed: int) -> LlamaForCausalLM:
    """Return an untrained policy."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(configuration())


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer in `folder`."""
    return checkpoint.load_tokenizer(str(folder), "policy")


@torch.inference_mode()
def sample(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, prompts: Sequence[DemoPrompt], count: int, seed: int
) -> list[list[str]]:  # fmt: skip
    """Return `count` answers to each prompt at temperature 1. Prompts of one length share a batch."""
    generator = torch.Generator().manual_seed(seed)
    rendered = [TEMPLATE.render(prompt.messages, tokenizer).token_ids for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(rendered[index]))
    answers: list[list[str]] = [[] for _ in prompts]
    width, start = max(1, _BATCH // count), 0
    while start < len(order):
        length = len(rendered[order[start]])
        batch = [index for index in order[start : start + width] if len(rendered[index]) == length]
        texts = _continue(policy, tokenizer, torch.tensor([rendered[index] for index in batch]), count, generator)
        for place, index in enumerate(batch):
            answers[index] = texts[place * count : (place + 1) * count]
        start += len(batch)
        if start * count // 16_000 > (start - len(batch)) * count // 16_000:
            _log.info("sampled answers to %d of %d prompts", start, len(order))
    return answers


def _continue(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, ids: torch.Tensor, count: int, generator: torch.Generator
) -> list[str]:
    """Return `count` sampled answers to each of the prompts `ids`, which are read once; finished rows leave."""
    cache = DynamicCache()
    logits = policy(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(count)
    logits = logits.repeat_interleave(count, 0)
    rows: list[list[int]] = [[] for _ in logits]
    going = torch.arange(len(logits))
    for _ in range(MAX_NEW_TOKENS):
        ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        kept = (ids[:, 0] != tokenizer.eos_id).nonzero()[:, 0]
        if len(kept) < len(ids):
            cache.batch_select_indices(kept)
            going, ids = going[kept], ids[kept]
        for row, token in zip(going.tolist(), ids[:, 0].tolist(), strict=True):
            rows[row].append(token)
        if not len(kept):
            break
        logits = policy(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    return [tokenizer.decode(row) for row in rows]


def score(
    model: PreTrainedModel, tokenizer: Tokenizer, answers: Sequence[tuple[Sequence[Message], str]]
) -> list[float]:
    """Return the raw logit of each answer to its dialog."""
    return classifier.score(model, [encode(tokenizer, messages, answer).ids for messages, answer in answers])
