"""Fine-tunes a Llama checkpoint on the best answers of a run, with TRL, on the CPU in float32.

The training half of `make distill-demo`, and an example of what `prompt-completion` files are for. No adapters, no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from winnow.models.demo.networks import export, load_policy


class Example(TypedDict):
    """A row of a `prompt-completion` file, as far as TRL reads it: only the completion carries loss."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW over whole epochs in batches of `batch`: linear warm-up over 5 % of the steps to `rate`, then a cosine to 0.

    `seed` alone decides the order, so that two sets of one size are learned in step.
    """

    epochs: int = 3
    batch: int = 32
    rate: float = 3e-4
    seed: int = 0


def fine_tune(examples: Sequence[Example], schedule: Schedule, start: Path, chat_template: Path, out: Path) -> None:
    """Train the checkpoint `start` on `examples` and write the result to `out`, in bf16, with the tokenizer's files.

    `chat_template` is the one beside the exported files: its ids are those that were sampled and scored.
    """
    policy = load_policy(start)
    trainer = SFTTrainer(
        model=policy,
        args=_arguments(schedule, out),
        train_dataset=Dataset.from_list(list(examples)),
        processing_class=_tokenizer(start, chat_template),
    )
    trainer.train()
    policy.config.use_cache = True  # which TRL turns off for training
    export(policy, start, out)


def _tokenizer(folder: Path, chat_template: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    # As the demo models were trained; without a choice TRL would write one of its own into the configuration.
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def _arguments(schedule: Schedule, out: Path) -> SFTConfig:
    plain: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
    }
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch,
        learning_rate=schedule.rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,  # a share of the steps
        seed=schedule.seed,
        **plain,
    )
