"""A real vocabulary of the Llama-2 kind (32,000 SentencePiece pieces, byte fallback), shipped in every usual way.

It is the one of mistral-common, a dependency of vLLM. Demo vocabularies hide what it shows: pieces that merge
with a bracket, characters of several byte tokens, and pieces whose score is not their order.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import generate_merges

from winnow.models.tokenizer import Tokenizer

Layout = Literal["prepend", "first", "always"]
SHIPPED: dict[str, tuple[dict[str, Any], Layout]] = {
    "LlamaTokenizer": ({"tokenizer_class": "LlamaTokenizer"}, "prepend"),
    "LlamaTokenizer, legacy": ({"tokenizer_class": "LlamaTokenizer", "legacy": True}, "prepend"),
    "LlamaTokenizer, not legacy": ({"tokenizer_class": "LlamaTokenizer", "legacy": False}, "first"),
    "LlamaTokenizerFast": ({"tokenizer_class": "LlamaTokenizerFast"}, "prepend"),
    "LlamaTokenizerFast, legacy": ({"tokenizer_class": "LlamaTokenizerFast", "legacy": True}, "prepend"),
    "LlamaTokenizerFast, not legacy": ({"tokenizer_class": "LlamaTokenizerFast", "legacy": False}, "first"),
    "PreTrainedTokenizerFast": ({"tokenizer_class": "PreTrainedTokenizerFast"}, "prepend"),
    "PreTrainedTokenizerFast, Metaspace": ({"tokenizer_class": "PreTrainedTokenizerFast"}, "first"),
    "PreTrainedTokenizerFast, Metaspace always": ({"tokenizer_class": "PreTrainedTokenizerFast"}, "always"),
    "TokenizersBackend": ({"tokenizer_class": "TokenizersBackend"}, "first"),
}
"""Each way in which such a tokenizer is shipped: the class in its configuration, and where `tokenizer.json` puts the
dummy space. Llama's own classes do not read that from `tokenizer.json`."""
CONTROLS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


@cache
def _model() -> bytes:
    """The SentencePiece model; skips the test where mistral-common is not installed."""
    pytest.importorskip("mistral_common", reason="mistral-common, which vLLM brings, holds the real vocabulary")
    return (resources.files("mistral_common") / "data" / "tokenizer.model.v1").read_bytes()


@cache
def pieces() -> sentencepiece.SentencePieceProcessor:
    """The reference: SentencePiece itself."""
    return sentencepiece.SentencePieceProcessor(model_proto=_model())


@cache
def pieces_in_the_middle() -> sentencepiece.SentencePieceProcessor:
    """The reference in the middle of a text: SentencePiece without the dummy space."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(_model())
    proto.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


@cache
def wrapped(way: str) -> PreTrainedTokenizerBase:
    """The tokenizer of transformers, from files that `ship` wrote."""
    with TemporaryDirectory() as folder:
        return AutoTokenizer.from_pretrained(ship(way, Path(folder)))


@cache
def shipped(way: str) -> Tokenizer:
    """The product's tokenizer, from the same files."""
    return Tokenizer(wrapped(way))


def ship(way: str, folder: Path) -> Path:
    """Write the tokenizer's files into `folder`, as one of `SHIPPED` has them, and return `folder`."""
    settings, layout = SHIPPED[way]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(_model())
    (folder / "tokenizer.json").write_text(_tokenizer_json(layout), encoding="utf-8")
    rest = {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**CONTROLS, **rest, **settings}), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(CONTROLS), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 32_000}), encoding="utf-8")
    return folder


@cache
def _tokenizer_json(layout: Layout) -> str:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(_model())
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces}
    merges = generate_merges(vocabulary, scores, [*CONTROLS.values()])
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if layout == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=layout, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROLS.values()])
    return tokenizer.to_str()
