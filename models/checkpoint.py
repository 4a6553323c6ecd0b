"""What a checkpoint is, read from its own files before an engine is started on it.

Finds in milliseconds, and says in one line, what would otherwise surface minutes later as a traceback from an engine's
process. Covers local folders in the Hugging Face layout; a hub id is left for vLLM to resolve.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from winnow.models.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["policy", "reward model"]
_ARCHITECTURE: dict[Kind, str] = {"policy": "LlamaForCausalLM", "reward model": "LlamaForSequenceClassification"}


def is_local(checkpoint: str) -> bool:
    """Whether `checkpoint` names a folder rather than a hub id (`owner/name`)."""
    return Path(checkpoint).exists() or checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1


def inspect(checkpoint: str, kind: Kind) -> None:
    """Check that `checkpoint` is a whole one of `kind`, as far as its files can tell.

    Raises:
        CheckpointError: a file is missing, cut short, not safetensors, or the architecture is of another kind.
    """
    if not is_local(checkpoint):
        return
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(f"{kind}: no such folder: {checkpoint}")
    _check_config(folder, kind)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{kind}: {folder} has no tokenizer.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{kind}: {folder} has no .safetensors file; other weight formats are not loaded")
    _check_shards(folder, kind)
    tensors = {name for file in files for name in _tensor_names(file, kind)}
    if kind == "reward model" and "score.weight" not in tensors:
        raise CheckpointError(f"{kind}: {folder} has no score.weight; its classification head is missing")


def _check_config(folder: Path, kind: Kind) -> None:
    config = _read_json(folder / "config.json", kind)
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture != _ARCHITECTURE[kind]:
        raise CheckpointError(f"{kind}: {folder} is a {architecture}; a {kind} must be a {_ARCHITECTURE[kind]}")
    labels = config.get("num_labels") or len(config.get("id2label") or {0: ""})
    if kind == "reward model" and labels != 1:
        raise CheckpointError(f"{kind}: {folder} has {labels} labels; a reward model has one")


def _check_shards(folder: Path, kind: Kind) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(_read_json(index, kind).get("weight_map", {}).values())
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise CheckpointError(f"{kind}: {folder} has no {missing[0]}, which its index names")


def _read_json(path: Path, kind: Kind) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{kind}: {path.parent} has no {path.name}") from None
    except ValueError as error:
        raise CheckpointError(f"{kind}: {path} is not valid JSON") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{kind}: {path} is not a JSON object")
    return content


def _tensor_names(path: Path, kind: Kind) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{kind}: {path} is truncated or not a safetensors file") from error


def load_tokenizer(checkpoint: str, kind: Kind) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of `checkpoint`.

    Raises:
        CheckpointError: there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{kind}: no tokenizer could be loaded from {checkpoint}") from error
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise CheckpointError(f"{kind}: the tokenizer of {checkpoint} has no BOS or no EOS token")
    return tokenizer


def require_same_tokenizer(
    policy: PreTrainedTokenizerBase, reward_model: PreTrainedTokenizerBase, checkpoint: str
) -> None:
    """Check that a reward model reads the policy's token ids: they are handed on, never re-tokenised.

    Raises:
        CheckpointError: the vocabularies differ, or the ids of BOS or EOS do.
    """
    mine = (policy.get_vocab(), policy.bos_token_id, policy.eos_token_id)
    theirs = (reward_model.get_vocab(), reward_model.bos_token_id, reward_model.eos_token_id)
    if mine != theirs:
        raise CheckpointError(f"reward model: the tokenizer of {checkpoint} is not the policy's; both must be the same")
