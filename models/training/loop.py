"""The training loop: batches of similar lengths, the paper's schedule, and checkpoints to resume from.

The caller supplies the model, the examples and the loss.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_log = logging.getLogger(__name__)

PAD = 0
"""The id of `<unk>`. EOS cannot pad: Hugging Face scores the last token that is not padding, which is EOS."""

TOKENS = 8_192
"""Tokens of a batch, padding included."""
WARM_UP, FINAL_RATE = 0.03, 0.1
SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A training run: its name, ordered batches of example indices, peak learning rate and checkpoint."""

    name: str
    batches: Sequence[Sequence[int]]
    peak_rate: float
    checkpoint: Path


def rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: linear warm-up over 3 % of the steps, then cosine to 10 % (Llama 2, 3.2.2)."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


def batches_by_length(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Return shuffled batches of `size` indices of similar length, so that little is padding.

    A batch of long ones has fewer, so that no step is much slower than the others.
    """
    rng = Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    pool = 64 * size
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda index: lengths[index])
        batches += [part for cut in range(0, len(near), size) for part in _parts(near[cut : cut + size], lengths)]
    rng.shuffle(batches)
    return batches


def _parts(batch: list[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return a batch, sorted by length, in parts of at most `TOKENS` with their padding."""
    if len(batch) == 1 or len(batch) * lengths[batch[-1]] <= TOKENS:
        return [batch]
    middle = len(batch) // 2
    return [*_parts(batch[:middle], lengths), *_parts(batch[middle:], lengths)]


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return right-padded token ids, [rows, longest]. Causal attention hides the padding from real tokens."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def optimise(model: nn.Module, plan: Plan, loss_of: Callable[[Sequence[int]], Tensor]) -> None:
    """Take one step per batch on `loss_of(indices)`; resume from the plan's checkpoint, and end with one."""
    optimisers = _optimisers(model, plan.peak_rate)
    first = _resume(model, optimisers, plan)
    steps, smooth = len(plan.batches), float("nan")
    began = saved = time.monotonic()
    model.train()
    for step in range(first, steps):
        for group in chain.from_iterable(optimiser.param_groups for optimiser in optimisers):
            group["lr"] = rate_at(step, steps, plan.peak_rate)
        model.zero_grad()
        loss = loss_of(plan.batches[step])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        now = time.monotonic()
        if (step + 1) % 100 == 0:
            left = (now - began) / (step + 1 - first) * (steps - step - 1)
            _log.info("%s: step %d/%d, loss %.4f, %.1f min left", plan.name, step + 1, steps, smooth, left / 60)
        if now - saved > SECONDS_BETWEEN_CHECKPOINTS or step + 1 == steps:
            _save(model, optimisers, plan, step + 1)
            saved = now
    model.eval()


def _optimisers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for the rest, which learn facts in fewer steps."""
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    rest = [p for name, p in model.named_parameters() if ".layers." not in name or p.ndim != 2]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, ns_steps=4, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def _resume(model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], plan: Plan) -> int:
    """Load the checkpoint if there is one; return the step to continue with."""
    if not plan.checkpoint.exists():
        return 0
    with safe_open(plan.checkpoint, framework="pt") as file:
        progress = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    if int(progress["steps"]) != len(plan.batches):
        raise ValueError(f"{plan.checkpoint} belongs to a run of another length; use another --work folder")
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, index, key = name.split(".")
            states[int(number)].setdefault(int(index), {})[key] = tensor
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    model.load_state_dict(
        {name.removeprefix("model:"): value for name, value in tensors.items() if name.startswith("model:")}
    )
    return int(progress["step"])


def _save(model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], plan: Plan, step: int) -> None:
    """Write weights and optimiser states as safetensors, atomically."""
    tensors = {f"model:{name}": value for name, value in model.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{index}.{key}": value for key, value in state.items()}
    partial = plan.checkpoint.with_suffix(".partial")
    # Copies, because the format refuses tied embeddings: one tensor under two names.
    copies = {name: value.detach().clone() for name, value in tensors.items()}
    save_file(copies, partial, {"step": str(step), "steps": str(len(plan.batches))})
    partial.replace(plan.checkpoint)
