"""The demo models' tokenizer: SentencePiece BPE with Llama-2's settings, also for Hugging Face.

Covers training and conversion. The conversion is direct (pieces become the vocabulary, scores the merge
order), so that both give the same ids for any text. Control tokens spelt out in a text stay text unless
the caller asks otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

VOCABULARY = 2_048
CONTEXT = 2_048
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
_TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def _sentences(texts: Iterable[str]) -> Iterable[str]:
    """Yield `texts` with punctuation detached, so that no piece spans a word and a mark, and the chat tags."""
    for text in texts:
        yield re.sub(r"(?<=\w)(?=[^\w\s])|(?<=[^\w\s])(?=[\w\[])", " ", text.replace("\n", " "))
        yield " ".join(_TAGS)


def train(texts: Iterable[str], folder: Path) -> None:
    """Train on `texts` and write all tokenizer files to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "tokenizer.model"
    with model.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_sentences(texts)), model_writer=writer, model_type="bpe", vocab_size=VOCABULARY,
            byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity", add_dummy_prefix=True,
            remove_extra_whitespaces=False, split_digits=True, split_by_unicode_script=False, num_threads=1,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        )  # fmt: skip
    convert(model, folder)


def convert(model: Path, folder: Path) -> None:
    """Write `tokenizer.json` and its configuration for a SentencePiece BPE `model`."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocabulary = {pieces.id_to_piece(index): index for index in range(pieces.get_piece_size())}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, _merges(pieces, vocabulary), unk_token=UNK, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, vocabulary[BOS])]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (UNK, BOS, EOS)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"unk_token": UNK, "bos_token": BOS, "eos_token": EOS}
    settings = {
        **names,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def _merges(pieces: sentencepiece.SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return all pairs of pieces that form a piece, in the order in which SentencePiece merges them: best score first.

    In a real vocabulary scores are not in the order of the ids.
    """
    merges: list[tuple[str, str]] = []
    learnt = {piece: index for piece, index in vocabulary.items() if not _is_given(pieces, index)}
    for piece in learnt:
        splits = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(left, right) for left, right in splits if left in learnt and right in learnt]
    return sorted(merges, key=lambda pair: -pieces.get_score(vocabulary["".join(pair)]))


def _is_given(pieces: sentencepiece.SentencePieceProcessor, index: int) -> bool:
    return bool(pieces.is_byte(index) or pieces.is_control(index) or pieces.is_unknown(index))
