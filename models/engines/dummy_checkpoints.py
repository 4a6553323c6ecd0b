"""Checkpoint folders in known shapes, without weights, for `winnow serve --load-format dummy` and `winnow plan`.

`python -m winnow.models.engines.dummy_checkpoints llama-2-7b OUT --tokenizer FOLDER` writes `OUT/policy`,
`OUT/safety-rm` and `OUT/helpfulness-rm`. The tokenizer's files are copied from another checkpoint; its
vocabulary may be smaller than the shape's, whose further ids then have no text.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from winnow.models.demo import ModelName
from winnow.models.engines.shape import Shape

BOS, EOS = 1, 2
WORDS = 64
"""Different words in forced answers."""

SHAPES: Mapping[str, Shape] = {
    "llama-2-7b": Shape.llama2(4096, 32, 32, 11008),
    "llama-2-13b": Shape.llama2(5120, 40, 40, 13824),
    "tiny": Shape.llama2(64, 2, 2, 176, vocabulary=2048, context=2048),
}


def config(shape: Shape, role: ModelName) -> dict[str, Any]:
    """Return the config.json of `shape` as a policy, or as a reward model with one label."""
    common = {
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": shape.is_tied,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    if role == "policy":
        return {"architectures": ["LlamaForCausalLM"], **common}
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {"architectures": ["LlamaForSequenceClassification"], **common, **labels}


def write(folder: Path, shape: Shape, role: ModelName, tokenizer: Path) -> Path:
    """Write one checkpoint into `folder`, with the tokenizer of the checkpoint `tokenizer`; returns `folder`.

    Raises:
        FileNotFoundError: there is no tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(shape, role), indent=2), encoding="utf-8")
    generation = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    others = (*tokenizer.glob("tokenizer*"), *tokenizer.glob("special_tokens_map.json"))
    for file in {tokenizer / "tokenizer.json", *others}:
        shutil.copyfile(file, folder / file.name)
    return folder


def write_all(folder: Path, shape: Shape, tokenizer: Path) -> dict[ModelName, Path]:
    """Write a policy and two reward models of `shape` into sub-folders of `folder`; returns the sub-folders."""
    return {role: write(folder / role, shape, role, tokenizer) for role in get_args(ModelName)}


def plain_words(tokenizer: Path) -> tuple[int, ...]:
    """Return ids of whole words of letters, which the tokenizer of `tokenizer` encodes as it decoded them in any order.

    Answers of these alone are scored at the length that was sampled.
    """
    file = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = file["model"]["vocab"]
    words = sorted(
        token
        for piece, token in vocabulary.items()
        if len(piece) > 3 and piece[0] == "▁" and piece[1:].isascii() and piece[1:].isalpha()
    )
    return tuple(words[:WORDS])


def main() -> None:
    """Write the three checkpoints of a shape."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint whose tokenizer is copied")
    given = parser.parse_args()
    for path in write_all(given.out, SHAPES[given.shape], given.tokenizer).values():
        print(path)


if __name__ == "__main__":
    main()
