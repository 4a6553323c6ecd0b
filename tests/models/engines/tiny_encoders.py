"""Tiny random encoder classifiers with the tokenizers of their families, built without downloads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertTokenizerFast,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
)

from tests.models.engines.tiny import CORPUS

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
DEBERTA_SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TOXICITIES = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's: lower-cased word pieces, segments 0 and 1."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=BERT_SPECIALS, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return BertTokenizerFast(tokenizer_object=backend)


def byte_level() -> PreTrainedTokenizerFast:
    """RoBERTa's: byte-level BPE, two `</s>` between the sentences, no segments."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=ROBERTA_SPECIALS,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return RobertaTokenizerFast(tokenizer_object=backend)


def unigram() -> PreTrainedTokenizerFast:
    """DeBERTa v3's: SentencePiece's unigrams, with the special tokens among its pieces."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=DEBERTA_SPECIALS, unk_token="[UNK]", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return DebertaV2TokenizerFast(tokenizer_object=backend)


FAMILIES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "bert": (word_piece, {}),
    "roberta": (byte_level, {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}),
    "deberta-v2": (
        unigram,
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_buckets": 256,
            "type_vocab_size": 0,
            "pooler_hidden_size": 64,
        },
    ),
    "camembert": (byte_level, {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}),
    "electra": (word_piece, {"embedding_size": 64}),
    "albert": (unigram, {"embedding_size": 32, "num_hidden_groups": 1}),
    "distilbert": (word_piece, {"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 2}),
    "xlm-roberta": (byte_level, {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}),
    "modernbert": (unigram, {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}),
    "deberta": (
        word_piece,
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
         "type_vocab_size": 0, "pooler_hidden_size": 64},
    ),
}  # fmt: skip
"""Tokenizer and config by model type."""


def encoder(folder: Path, model_type: str, labels: int | tuple[str, ...] = 1, *, seed: int = 0, **config: Any) -> Path:
    """A random classifier of `model_type`, with so many labels or labels of these names."""
    make, own = FAMILIES[model_type]
    tokenizer = make()
    named = {} if isinstance(labels, int) else {"id2label": dict(enumerate(labels))}
    settings = AutoConfig.for_model(
        model_type,
        **{
            **SMALL,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            **own,
            **(named or {"num_labels": labels}),
            **config,
        },
    )
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(settings, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # so that a lost one shows
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def card(folder: Path, text: str) -> Path:
    """Write a card into the folder of a checkpoint."""
    (folder / "winnow-card.toml").write_text(text, encoding="utf-8")
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a folder."""
    return dict(json.loads((folder / "config.json").read_text()))
