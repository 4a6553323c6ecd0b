"""Supervised fine-tuning of a Llama checkpoint on a run's exported answers, with TRL, on the CPU in float32.

The training half of `make distill-demo`, and an example of the use of `prompt-completion` files. No
adapters, no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.exactness import is_exact
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.checkpoints import load_policy, save


class Example(TypedDict):
    """A row of a `prompt-completion` file, as far as TRL reads it: only the completion carries loss."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW over whole epochs: linear warm-up over 5 % of the steps to `rate`, then a cosine to 0.

    `batch` is in examples. `seed` alone decides the order, so that two data sets of one size are
    trained on in the same order.
    """

    epochs: int = 3
    batch: int = 32
    rate: float = 3e-4
    seed: int = 0


def fine_tune(examples: Sequence[Example], schedule: Schedule, start: Path, chat_template: Path, out: Path) -> None:
    """Train the checkpoint `start` on `examples`; write the result to `out`, in bfloat16, with its tokenizer.

    `chat_template` is the file beside the exported ones.

    Raises:
        ValueError: it does not give the tokenizer of `start` the ids that are sampled and scored.
    """
    policy = load_policy(start)
    trainer = _Trainer(
        model=policy,
        args=_arguments(schedule, out),
        train_dataset=Dataset.from_list(list(examples)),
        processing_class=_tokenizer(start, chat_template),
    )
    trainer.train()
    policy.config.use_cache = True  # TRL turns it off for training
    save(policy, start, out)


class _Trainer(SFTTrainer):
    def _send_telemetry(self) -> None:
        """Send nothing: training makes no outbound request."""


def _tokenizer(folder: Path, chat_template: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    if not is_exact(tokenizer.chat_template, TEMPLATES["llama2"], Tokenizer(tokenizer)):
        raise ValueError(
            f"{chat_template.name} does not fit the tokenizer of {folder.name}; export it for this tokenizer"
        )
    # The demo models were trained with it; TRL would otherwise choose a pad token and write it into the configuration.
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
