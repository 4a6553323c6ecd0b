"""Training of a reward model on comparisons and labels, by TRL's RewardTrainer (Llama 2, 3.2.2).

`train` makes a classifier with one label of a checkpoint and trains it; killed at any moment, the same call goes on,
to the same weights on a CPU. It reads and writes no data files: see `winnow.models.training.examples`.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]

from winnow.models.errors import CheckpointError, RunError
from winnow.models.training.classifier import (
    choose_pad,
    head_of,
    load,
    load_tokenizer,
    quiet,
    save,
    score,
    without_cache,
)
from winnow.models.training.examples import Example, Recipe
from winnow.models.training.micro_batches import Collator, Order, columns, order_of
from winnow.models.training.work_folder import WorkFolder

__all__ = ["Progress", "save", "score", "train"]

SMOOTHED = 20
"""Steps whose loss, accuracy and rate a progress report averages."""
PLAIN_ATTENTION_TOKENS = 256
"""Length up to which attention is plain in low precision on a CPU. PyTorch's fused one makes a matrix product of its
own for each head and sequence on the way back, half of a step's time; the plain one keeps all weights."""
_WATCH = "watch.json"
_CHECKPOINTED_FROM = 1_000_000_000
"""Parameters from which activations are computed a second time to save memory."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a training. `loss` and `accuracy` (NaN without comparisons) are means over the last steps.

    `pairs_per_second` counts examples; `seconds_left` and it are those of this call's steps. `learning_rate` is that
    of the step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    pairs_per_second: float
    seconds_left: float
    epoch: float
    learning_rate: float


def train(
    init: Path,
    examples: Sequence[Example],
    recipe: Recipe,
    work: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> PreTrainedModel:
    """Train the checkpoint `init` on `examples`; return the model in float32, in evaluation mode.

    `work` keeps two checkpoints; if the same call was interrupted, it goes on from the last one. `on_progress` is
    called after each step.

    Raises:
        CheckpointError: `init` cannot become a reward model.
        AnotherRun: `work` belongs to another run.
        RunError: the training diverges.
    """
    if not examples:
        raise ValueError("there are no examples to train on")
    model, tokenizer = load(init, recipe.seed), load_tokenizer(init)
    _require_known(examples, model)
    if recipe.upper_layers is not None:
        freeze_below(model, recipe.upper_layers)
    folder = WorkFolder(work)
    folder.claim(init, examples, recipe)
    ends = {example.chosen[-1] for example in examples} | {e.rejected[-1] for e in examples if e.rejected}
    text = model.config.get_text_config()
    text.pad_token_id = choose_pad(model, tokenizer, frozenset(ends))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(text.pad_token_id)
    configuration = copy.deepcopy(vars(model.config))
    order = order_of(examples, recipe)
    watch = _Watch(order, recipe, len(examples), on_progress)
    with quiet():
        trainer = _Trainer(
            model, Dataset.from_dict(columns(examples)), tokenizer, recipe, order, folder,
            watch,
        )  # fmt: skip
        if latest := folder.latest():
            watch.restore(latest / _WATCH)
        trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
        trained = trainer.unwrapped()
    vars(trained.config).clear()  # what training sets in it is not the model's
    vars(trained.config).update(configuration)
    return trained.eval()


def _require_known(examples: Sequence[Example], model: PreTrainedModel) -> None:
    highest = max(max(*example.chosen, *(example.rejected or ())) for example in examples)
    if highest >= (rows := model.get_input_embeddings().num_embeddings):
        raise CheckpointError(
            f"the tokenizer has the token {highest}, and the model embeddings for {rows} tokens: they do not belong "
            "together"
        )


def freeze_below(model: PreTrainedModel, layers: int) -> None:
    """Keep all weights as they are but those of the last `layers` layers, and what comes after them.

    The frozen layers then run without gradients.

    Raises:
        CheckpointError: it has fewer layers.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    outermost = [found for found in lists if not any(found[0].startswith(f"{name}.") for name, _ in lists)]
    stack = max(outermost, key=lambda found: len(found[1]))
    if layers > len(stack[1]):
        raise CheckpointError(f"the checkpoint has {len(stack[1])} layers, so its last {layers} cannot be trained")
    first = f"{stack[0]}.{len(stack[1]) - layers}."
    is_trained = False
    for name, parameter in model.named_parameters():
        is_trained = is_trained or name.startswith(first)
        parameter.requires_grad_(is_trained)


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Reports progress, and asks for checkpoints."""

    def __init__(
        self, order: Order, recipe: Recipe, count: int, on_progress: Callable[[Progress], None]
    ) -> None:  # fmt: skip
        self._order, self._recipe, self._count, self._on_progress = order, recipe, count, on_progress
        self._losses: deque[float] = deque(maxlen=SMOOTHED)
        self._outcomes: deque[tuple[float, int]] = deque(maxlen=SMOOTHED)
        self._times: deque[float] = deque(maxlen=SMOOTHED + 1)
        self._saved = self._rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()
        self._times.append(self._saved)

    def add(self, loss: float, won: float, pairs: int) -> None:
        """Note the loss of a step, its number of pairs, and in how many the chosen answer scored higher.

        Raises:
            RunError: the loss is no number; this step and those after it would make all weights so.
        """
        if not math.isfinite(loss):
            raise RunError("the loss is no finite number any more: train with a lower learning rate, or in float32")
        self._losses.append(loss)
        self._outcomes.append((won, pairs))

    def save(self, file: Path) -> None:
        """Write what the means of the last steps are made of, so that a resumed run reports the same ones."""
        file.write_text(json.dumps([list(self._losses), list(self._outcomes)]), encoding="utf-8")

    def restore(self, file: Path) -> None:
        """Take up what `save` wrote, if it did."""
        if not file.exists():
            return
        losses, outcomes = json.loads(file.read_text(encoding="utf-8"))
        self._losses.extend(losses)
        self._outcomes.extend(map(tuple, outcomes))

    def on_step_begin(self, args: Any, state: Any, control: Any, *, lr_scheduler: Any, **_: Any) -> None:
        self._rate = lr_scheduler.get_last_lr()[0]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        self._times.append(now)
        step, steps = state.global_step, self._order.steps
        per_step = (now - self._times[0]) / (len(self._times) - 1)
        pairs = sum(pairs for _, pairs in self._outcomes)
        self._on_progress(
            Progress(
                step=step,
                steps=steps,
                loss=sum(self._losses) / len(self._losses),
                accuracy=sum(won for won, _ in self._outcomes) / pairs if pairs else float("nan"),
                pairs_per_second=self._recipe.batch / per_step,
                seconds_left=per_step * (steps - step),
                epoch=min(self._recipe.epochs, step * self._recipe.batch / self._count),
                learning_rate=self._rate,
            )
        )
        if now - self._saved >= self._recipe.save_seconds or step in self._order.ends or step == steps:
            control.should_save = True
            self._saved = now


class _Trainer(RewardTrainer):
    """TRL's trainer with our order, losses and checkpoints. The losses of a step are exact means over all of it."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        dataset: Dataset,
        tokenizer: Any,
        recipe: Recipe,
        order: Order,
        folder: WorkFolder,
        watch: _Watch,
    ) -> None:
        self._recipe, self._order, self._folder, self._watch = recipe, order, folder, watch
        self._parts: list[Tensor] = []
        self._options = without_cache(model)
        self._attention = model
        name, head = head_of(model)
        if recipe.dtype != "float32":
            head.register_forward_hook(_in_float32)
        super().__init__(
            model=model,
            args=_arguments(recipe, order, model, folder.root),
            train_dataset=dataset,
            processing_class=tokenizer,
            data_collator=Collator(tokenizer.pad_token_id),
            callbacks=[watch],
            peft_config=None if recipe.lora_rank is None else _adapters(recipe.lora_rank, name),
        )
        self.remove_callback(PrinterCallback)
        self.processing_class = None  # it would be saved with each checkpoint, and rewrite the configuration

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_sampler=self._order, collate_fn=self.data_collator)

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Tensor]], device: Any) -> Tensor:
        """Return the numbers of pairs and of labels in a step."""
        pairs = sum(len(batch["pairs"]) for batch in batch_samples)
        labels = sum(int((batch["target"] >= 0).sum()) for batch in batch_samples)
        return torch.tensor([pairs, labels], device=device)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's part of the step's loss."""
        pairs, margin, target = (inputs.pop(name) for name in ("pairs", "margin", "target"))
        self._choose_attention(inputs["input_ids"].shape[1])
        logits = model(**inputs, **self._options).logits[:, 0].float()
        chosen, rejected = logits[pairs], logits[len(logits) - len(pairs) :]
        labelled = target >= 0
        ranking = ranking_loss(chosen, rejected, margin, self._recipe) / num_items_in_batch[0].clamp(min=1)
        auxiliary = labelling_loss(logits[labelled], target[labelled], self._recipe.label_smoothing)
        loss = ranking + self._recipe.auxiliary * auxiliary / num_items_in_batch[1].clamp(min=1)
        lead = (chosen - rejected).detach()
        won = (lead > 0).sum() + 0.5 * (lead == 0).sum()
        self._parts.append(torch.stack([loss.detach(), won.float()]))
        if self.accelerator.sync_gradients:
            total, won = torch.stack(self._parts).sum(0).tolist()
            self._watch.add(total, won, int(num_items_in_batch[0]))
            self._parts.clear()
        return loss

    def _choose_attention(self, tokens: int) -> None:
        """Take the attention that is faster for sequences of `tokens`; see `PLAIN_ATTENTION_TOKENS`."""
        if self._recipe.dtype == "float32" or torch.cuda.is_available():
            return
        wanted = "eager" if tokens <= PLAIN_ATTENTION_TOKENS else "sdpa"
        if self._attention.config._attn_implementation != wanted:
            self._attention.set_attn_implementation(wanted)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: counting the parameters costs a few milliseconds a micro-batch, and nobody reads it."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._folder.write(self.state.global_step, self._fill)

    def _fill(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))
        self._watch.save(folder / _WATCH)

    def _send_telemetry(self) -> None:
        """Send nothing: training makes no outbound request."""

    def unwrapped(self) -> PreTrainedModel:
        """Return the plain model: adapters merged, without the wrappers of mixed precision."""
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self._recipe.lora_rank is not None:
            model = model.merge_and_unload()
        head_of(model)[1]._forward_hooks.clear()
        return model.requires_grad_(True)


def _in_float32(head: torch.nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Compute a head's logits again, in float32: bfloat16 has steps of 1/32 at a logit of 4."""
    with torch.autocast(output.device.type, enabled=False):
        return functional.linear(inputs[0].float(), head.weight, head.bias)


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor, recipe: Recipe) -> Tensor:
    """Return the sum over pairs of -log sigmoid(r_c - r_r - m), smoothed, and of the centring term."""
    lead = chosen - rejected - margin
    wrong = recipe.label_smoothing
    ranking = -(1 - wrong) * functional.logsigmoid(lead) - wrong * functional.logsigmoid(-lead)
    return (ranking + recipe.centre * (chosen + rejected) ** 2).sum()


def labelling_loss(logits: Tensor, target: Tensor, wrong: float) -> Tensor:
    """Return the summed binary cross-entropy of labels of which the share `wrong` is taken for wrong."""
    smoothed = target * (1 - 2 * wrong) + wrong
    return functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="sum")


def _adapters(rank: int, head: str) -> LoraConfig:
    return LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear", modules_to_save=[head]
    )


def _arguments(recipe: Recipe, order: Order, model: PreTrainedModel, work: Path) -> RewardConfig:
    large = model.num_parameters() >= _CHECKPOINTED_FROM
    plain: dict[str, Any] = {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": recipe.dtype == "bfloat16",
        "gradient_checkpointing": large,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",  # `_Watch` asks for checkpoints
        "report_to": [],
        "remove_unused_columns": False,
        "max_length": None,
    }
    return RewardConfig(
        output_dir=str(work),
        num_train_epochs=1,  # the order holds all epochs
        per_device_train_batch_size=recipe.batch // order.per_step,
        gradient_accumulation_steps=order.per_step,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_warmup_with_min_lr",  # its first step is not one of rate 0
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=0.03,  # a share of the steps
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_epsilon=1e-5,
        weight_decay=recipe.weight_decay,
        max_grad_norm=1.0,
        seed=recipe.seed,
        **plain,
    )
