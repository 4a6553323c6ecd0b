"""TRL trains on the exports as they are: no mapping function, a few real steps on the demo policy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from tests.runs import make_run
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill import tokenizer_copy
from winnow.server.distill.export import ExportOptions, MarginSize
from winnow.server.distill.export.formats import export

STEPS: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a run of 24 prompts; some have turns that carry no loss."""
    folder = tmp_path_factory.mktemp("run")
    assert any(item.mask_history for item in make_run(folder, prompts=24))
    tokenizer_copy.keep(folder, str(demo.weights("policy")))
    export(folder, ["sft", "prompt-completion", "token-ids", "preferences", "reward", "kto"], ExportOptions())
    return folder / "export"


@pytest.fixture
def tokenizer(data: Path) -> PreTrainedTokenizerBase:
    loaded = AutoTokenizer.from_pretrained(demo.weights("policy"))
    loaded.chat_template = (data / "chat_template.jinja").read_text(encoding="utf-8")
    return loaded


def policy() -> Any:
    return AutoModelForCausalLM.from_pretrained(demo.weights("policy"), dtype=torch.float32)


def rows(data: Path, name: str, tmp_path: Path) -> Dataset:
    return load_dataset(str(data), name, split="train", cache_dir=str(tmp_path / "cache"))


def check_learns(trainer: Any) -> list[float]:
    """Train; every loss is finite and weights have moved. The losses, step by step."""
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS["max_steps"]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
    return losses


def test_prompt_completion_carries_loss_on_the_answer_alone(
    data: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    raw = rows(data, "prompt-completion", tmp_path)
    arguments = SFTConfig(output_dir=str(tmp_path), **STEPS)
    trainer = SFTTrainer(policy(), args=arguments, train_dataset=raw, processing_class=tokenizer)
    ours, template = Tokenizer(tokenizer), Llama2Template()
    compared = 0
    for row, ready in zip(raw, trainer.train_dataset, strict=True):
        labels = ready["labels"]
        answer = [label for label in labels if label != -100]
        assert labels == [-100] * (len(labels) - len(answer)) + answer
        assert answer[-1] == ours.eos_id
        assert answer.count(ours.eos_id) == 1
        if "</s>" not in str(row):  # rendered text cannot say it without meaning it
            assert ready["input_ids"] == [*template.render(row["prompt"], ours).token_ids, *answer]
            assert answer[:-1] == ours.encode_continuation(f" {row['completion'][0]['content']}")
            compared += len(row["prompt"]) > 2
    assert compared
    check_learns(trainer)


def test_sft_trains_with_loss_where_weight_is(data: Path, tmp_path: Path) -> None:
    """By the file of the chat template, as the card says; turns of weight 0 carry no loss."""
    raw = rows(data, "sft", tmp_path)
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        chat_template_path=str(data / "chat_template.jinja"),
        assistant_only_loss=True,
        **STEPS,
    )
    trainer = SFTTrainer(
        policy(),
        args=arguments,
        train_dataset=raw,
        processing_class=AutoTokenizer.from_pretrained(demo.weights("policy")),
    )
    assert any(message["weight"] == 0 for row in raw for message in row["messages"])
    for row, ready in zip(raw, trainer.train_dataset, strict=True):
        learned = sum(message["weight"] or 0 for message in row["messages"])
        assert ready["labels"].count(2) == learned
    check_learns(trainer)


def test_token_ids_train_as_they_are(data: Path, tmp_path: Path) -> None:
    """With a tokenizer that has no chat template; TRL changes no id, and loss is on the answer alone."""
    raw = rows(data, "token-ids", tmp_path)
    arguments = SFTConfig(output_dir=str(tmp_path), **STEPS)
    plain = AutoTokenizer.from_pretrained(demo.weights("policy"))
    trainer = SFTTrainer(policy(), args=arguments, train_dataset=raw, processing_class=plain)
    for row, ready in zip(raw, trainer.train_dataset, strict=True):
        assert ready["input_ids"] == row["input_ids"]
        assert ready["labels"] == [
            token if bit else -100 for token, bit in zip(row["input_ids"], row["completion_mask"], strict=True)
        ]
    check_learns(trainer)


def test_dpo_trains(data: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    raw = rows(data, "preferences", tmp_path)
    arguments = DPOConfig(output_dir=str(tmp_path), **STEPS)
    trainer = DPOTrainer(policy(), ref_model=policy(), args=arguments, train_dataset=raw, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(raw)
    first, *_ = check_learns(trainer)
    assert first == pytest.approx(math.log(2), abs=1e-3)  # policy and reference are still one


def test_kto_trains(data: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    raw = rows(data, "kto", tmp_path)
    assert set(raw["label"]) == {True, False}
    arguments = KTOConfig(output_dir=str(tmp_path), **STEPS)
    trainer = KTOTrainer(policy(), ref_model=policy(), args=arguments, train_dataset=raw, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(raw)
    check_learns(trainer)


@pytest.mark.parametrize("margin", [None, "small"])
def test_a_reward_model_trains_with_the_papers_margin_or_none(
    margin: MarginSize | None, data: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """A column `margin` is subtracted in the loss, so that there is none unless it is asked for."""
    export(data.parent, ["preferences"], ExportOptions(margin=margin), tmp_path / "export")
    raw = rows(tmp_path / "export", "preferences", tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(demo.weights("helpfulness-rm"), dtype=torch.float32)
    arguments = RewardConfig(output_dir=str(tmp_path), **STEPS)
    trainer = RewardTrainer(model, args=arguments, train_dataset=raw, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    if margin:
        assert set(batch["margin"].tolist()) <= set(torch.tensor([0, 1 / 3, 2 / 3, 1]).tolist())
    else:
        assert "margin" not in batch
    check_learns(trainer)
