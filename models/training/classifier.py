"""Classifiers with one label: made from a checkpoint to train, scored, and saved so that every reader agrees."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from winnow.models.errors import CheckpointError
from winnow.models.training.micro_batches import padded
from winnow.models.training.work_folder import disk_errors

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "vocab.txt", "spm.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates"),
)
_TRUNKS = ("ForCausalLM", "LMHeadModel", "ForMaskedLM")
_CLASSIFIER = "ForSequenceClassification"
_LIBRARIES = ("transformers", "trl", "peft", "accelerate", "datasets")
_DROPPED = ("lm_head", "cls.", "generator_predictions")
"""Beginnings of names of a language model's own head."""


def load(init: Path, seed: int = 0) -> PreTrainedModel:
    """Return a classifier with one label, in float32: that in `init`, or its trunk with a new head.

    The new head's weights are drawn with the standard deviation 1/sqrt(width + 1) (Stiennon et al. 2020), by `seed`.

    Raises:
        CheckpointError: `init` is neither a language model nor a classifier with one label, or is not whole.
    """
    config = AutoConfig.from_pretrained(init, local_files_only=True)
    name = next(iter(config.architectures or ()), "")
    is_classifier = name.endswith(_CLASSIFIER)
    if not is_classifier and not name.endswith(_TRUNKS):
        raise CheckpointError(
            f"a reward model is trained from a language model or from a classifier with one label, not from a "
            f"{name or 'checkpoint without an architecture'}"
        )
    if is_classifier and config.num_labels != 1:
        raise CheckpointError(f"the classifier to go on from has {config.num_labels} labels; a reward model has 1")
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            init, num_labels=1, dtype=torch.float32, local_files_only=True, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
        _require_whole(model, report, is_classifier)
        if not is_classifier:
            head = head_of(model)[1]
            nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return model.eval()


def _require_whole(model: PreTrainedModel, report: dict[str, Any], is_classifier: bool) -> None:
    """Check that `init` has all weights but a new head's, and none but its old head's that would go unused."""
    trunk = f"{model.base_model_prefix}."
    missing = [
        key for key in report["missing_keys"] if is_classifier or (key.startswith(trunk) and "pooler" not in key)
    ]
    unused = [key for key in report["unexpected_keys"] if is_classifier or not key.startswith(_DROPPED)]
    for keys, verdict in ((missing, "lacks"), (unused, "has, beside what its architecture uses,")):
        if keys:
            raise CheckpointError(
                f"the checkpoint to train from {verdict} {len(keys)} weights, {sorted(keys)[0]} the first: it is "
                "damaged, or its config.json names another architecture"
            )


def head_of(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Return the last linear layer with one output, and the name of the child of `model` that holds it."""
    name, head = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1
    ][-1]
    return name.split(".")[0], head


def load_tokenizer(init: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in `init`."""
    with quiet():
        return AutoTokenizer.from_pretrained(init, local_files_only=True)


def choose_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> int:
    """Return the token to pad with: a control token that ends no answer, and is no EOS.

    transformers reads the score at the last token that is not padding, so one that ends an answer would move it. The
    first of these that qualifies: the checkpoint's own, the tokenizer's, the control tokens with "pad" in their
    name, the unknown token, a reserved control token, any control token. `ends` are the last tokens of answers.

    Raises:
        CheckpointError: there is none.
    """
    config = model.config.get_text_config()
    eos = config.eos_token_id
    taken = ends | set(eos if isinstance(eos, list) else [eos]) | {tokenizer.eos_token_id}
    controls = [
        *(token for token in tokenizer.added_tokens_decoder if tokenizer.added_tokens_decoder[token].special),
        *tokenizer.all_special_ids,
    ]
    names: dict[int, str] = {token: str(tokenizer.convert_ids_to_tokens(token)).lower() for token in controls}
    candidates = [
        config.pad_token_id,
        tokenizer.pad_token_id,
        *(token for token in controls if "pad" in names[token]),
        tokenizer.unk_token_id,
        *(token for token in controls if "reserved" in names[token] or "unused" in names[token]),
        *controls,
    ]
    for token in candidates:
        if token is not None and 0 <= token < config.vocab_size and token not in taken:
            return int(token)
    raise CheckpointError("the tokenizer has no control token to pad with beside those that end an answer; add one")


@torch.inference_mode()
def score(model: PreTrainedModel, sequences: Sequence[Sequence[int]], tokens: int | None = None) -> list[float]:
    """Return the raw logit of each sequence of token ids, read at its last token.

    Batches hold sequences of similar length, and `tokens` with their padding: 8,192 on a CPU, else 65,536.

    Raises:
        ValueError: a sequence is empty or ends in the padding token, before which the score would be read.
    """
    pad_id = model.config.get_text_config().pad_token_id
    if any(not sequence or sequence[-1] == pad_id for sequence in sequences):
        raise ValueError("a sequence to score is empty, or ends in the padding token")
    budget = tokens or (8_192 if model.device.type == "cpu" else 65_536)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]), reverse=True)
    logits = [0.0] * len(sequences)
    was_training = model.training
    model.eval()
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, budget // len(sequences[order[start]]))]
        inputs = padded([sequences[index] for index in rows], pad_id)
        out = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}, **without_cache(model))
        for index, logit in zip(rows, out.logits[:, 0].float().tolist(), strict=True):
            logits[index] = logit
        start += len(rows)
    model.train(was_training)
    return logits


def without_cache(model: PreTrainedModel) -> dict[str, bool]:
    """Return the argument of a forward pass that keeps no keys and values; an encoder has none."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def save(model: PreTrainedModel, init: Path, out: Path, dtype: str = "bfloat16") -> None:
    """Write safetensors in `dtype`, the configuration, and the tokenizer's files from `init`, to `out`.

    `model` itself stays in float32, with its weights rounded to those saved. The tokenizer's padding token becomes
    the model's, so that who pads with it reads the score where it was trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (init / name).is_dir():
            shutil.copytree(init / name, out / name, dirs_exist_ok=True)
        elif (init / name).exists():
            shutil.copyfile(init / name, out / name)
    pad = load_tokenizer(init).convert_ids_to_tokens(model.config.get_text_config().pad_token_id)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _edit(out / name, pad_token=pad)
    # Not `model.to`, which would round buffers that are not saved, such as the frequencies of the positions.
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    with quiet(), disk_errors(out):
        model.save_pretrained(out, state_dict=weights)
    _edit(out / "config.json", dtype=dtype)
    for file in out.glob("*.safetensors"):
        shutil.copymode(out / "config.json", file)  # it is the owner's alone otherwise


def _edit(file: Path, **fields: str) -> None:
    """Set fields of a JSON file, if there is one; of special tokens only those it has."""
    if file.exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        content |= {
            name: value for name, value in fields.items() if file.stem != "special_tokens_map" or name in content
        }
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries of training from warning, from logging less than errors and from drawing bars."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=rf"(torch|{'|'.join(_LIBRARIES)})\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
