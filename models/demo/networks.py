"""The demo networks: a small Llama policy, reward models made from it, their files, their answers and their scores.

Everything here is plain transformers, so that what vLLM serves is checked against an independent path.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.corpus import encode
from winnow.models.demo.tokenizer import CONTEXT, VOCABULARY
from winnow.models.demo.world import DemoPrompt
from winnow.models.training.loop import PAD, pad
from winnow.models.types import Message

_log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 64
_BATCH = 256
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def configuration(**extra: int) -> LlamaConfig:
    """The shape of all three networks: 1.6 million parameters, of which 0.3 are embeddings."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=160, intermediate_size=432, num_hidden_layers=4, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=CONTEXT, tie_word_embeddings=True, initializer_range=0.06,
        bos_token_id=1, eos_token_id=2, pad_token_id=PAD, **extra,
    )  # fmt: skip


def new_policy(seed: int) -> LlamaForCausalLM:
    """An untrained policy."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(configuration())


def reward_from(policy: LlamaForCausalLM, seed: int) -> LlamaForSequenceClassification:
    """A reward model with the policy's trunk and a new one-logit head (Llama 2, section 3.2.2)."""
    torch.manual_seed(seed)
    reward = LlamaForSequenceClassification(configuration(num_labels=1))
    reward.model.load_state_dict(policy.model.state_dict())
    return reward


def export(model: LlamaForCausalLM | LlamaForSequenceClassification, tokenizer: Path, folder: Path) -> None:
    """Write bf16 safetensors, the configuration and the tokenizer's files to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, LlamaForCausalLM):
        model.generation_config = GenerationConfig(
            bos_token_id=1, eos_token_id=2, pad_token_id=PAD, do_sample=True, temperature=1.0, top_p=1.0
        )
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)


def load_policy(folder: Path) -> LlamaForCausalLM:
    """The shipped policy in fp32, as it is served on CPU."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_reward(folder: Path) -> LlamaForSequenceClassification:
    """A shipped reward model in fp32."""
    return LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


def load_template(folder: Path) -> Llama2Template:
    """The chat template over the tokenizer in `folder`."""
    return Llama2Template(AutoTokenizer.from_pretrained(folder))


@torch.inference_mode()
def sample(
    policy: LlamaForCausalLM, template: Llama2Template, prompts: Sequence[DemoPrompt], count: int, seed: int
) -> list[list[str]]:  # fmt: skip
    """`count` answers to each prompt at temperature 1, in the prompts' order. Prompts of one length share a batch."""
    generator = torch.Generator().manual_seed(seed)
    rendered = [template.render(prompt.messages).token_ids for prompt in prompts]
    rows = sorted((len(ids), index) for index, ids in enumerate(rendered) for _ in range(count))
    answers: list[list[str]] = [[] for _ in prompts]
    start = 0
    while start < len(rows):
        batch = [index for length, index in rows[start : start + _BATCH] if length == rows[start][0]]
        ids = torch.tensor([rendered[index] for index in batch])
        for index, answer in zip(batch, _continue(policy, template, ids, generator), strict=True):
            answers[index].append(answer)
        start += len(batch)
        if start // 4_000 > (start - len(batch)) // 4_000:
            _log.info("sampled %d of %d answers", start, len(rows))
    return answers


def _continue(
    policy: LlamaForCausalLM, template: Llama2Template, ids: torch.Tensor, generator: torch.Generator
) -> list[str]:
    """Sample until every row has met EOS or its limit; finished rows leave the batch. Returns the decoded answers."""
    cache = DynamicCache()
    rows: list[list[int]] = [[] for _ in ids]
    going = torch.arange(len(ids))
    for _ in range(MAX_NEW_TOKENS):
        out = policy(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids = torch.multinomial(out.logits[:, -1].softmax(-1), 1, generator=generator)
        kept = (ids[:, 0] != template.eos_id).nonzero()[:, 0]
        if len(kept) < len(ids):
            cache.batch_select_indices(kept)
            going, ids = going[kept], ids[kept]
        for row, token in zip(going.tolist(), ids[:, 0].tolist(), strict=True):
            rows[row].append(token)
        if not len(kept):
            break
    return [str(text) for text in template.tokenizer.batch_decode(rows)]


@torch.inference_mode()
def score(
    reward: LlamaForSequenceClassification, template: Llama2Template, answers: Sequence[tuple[Sequence[Message], str]]
) -> list[float]:
    """The raw logit of each answer to its dialog."""
    examples = [encode(template, messages, answer).ids for messages, answer in answers]
    order = sorted(range(len(examples)), key=lambda index: len(examples[index]))
    logits = [0.0] * len(examples)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        for index, logit in zip(batch, last_logits(reward, [examples[index] for index in batch]).tolist(), strict=True):
            logits[index] = logit
    return logits


def last_logits(reward: LlamaForSequenceClassification, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The head's logit at each row's last token, which is EOS; shape [rows]."""
    hidden = reward.model(input_ids=pad(rows)).last_hidden_state
    last = torch.tensor([len(row) - 1 for row in rows])
    logits: torch.Tensor = reward.score(hidden[torch.arange(len(rows)), last])[:, 0]
    return logits
