"""The demo tokenizer: SentencePiece and Hugging Face agree on any text, and its ids are Llama-2's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import pytest
import sentencepiece
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.models import real_vocabulary
from winnow.models.demo import ModelName, weights
from winnow.models.demo.tokenizer import convert
from winnow.models.demo.world import held_out_prompts
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.tokenizer import Tokenizer

FRAGMENTS = (
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "</s>",
    "<s>",
    "<unk>",
    "<0x0A>",
    "▁",
    "▁▁",
    "[INST]",
    "<<SYS>>",
    "0",
    "42",
    "Paris",
    " capital of France",
    "é",
    "e\u0301",
    "ß",
    "中文",
    "עברית",
    "🙂",
    "👩‍👩‍👧",
    "\u200b",
    "\ufeff",
    "\x01",
    "\r\n",
    "a" * 30,
)


@pytest.fixture(scope="module")
def fast() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(weights("policy"))
    return tokenizer


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(weights("policy") / "tokenizer.model"))


def character(rng: Random) -> str:
    while True:
        code = rng.choice((rng.randrange(1, 128), rng.randrange(1, 0x800), rng.randrange(1, sys.maxunicode)))
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def random_text(rng: Random) -> str:
    return "".join(rng.choice(FRAGMENTS) if rng.random() < 0.5 else character(rng) for _ in range(rng.randrange(14)))


def test_it_equals_sentencepiece_on_any_text(
    tokenizer: Tokenizer, pieces: sentencepiece.SentencePieceProcessor
) -> None:
    rng = Random(0)
    texts = [random_text(rng) for _ in range(2_500)]
    texts += [message.content for prompt in held_out_prompts(300) for message in prompt.messages]
    for text in texts:
        assert tokenizer.encode(text) == pieces.encode(text), repr(text)


def test_a_real_vocabulary_converts_to_sentencepieces_ids(tmp_path: Path) -> None:
    """Its scores are not in the order of its ids; merges in the order of ids gave two dialogs of three other ids."""
    pieces = real_vocabulary.pieces()
    model = tmp_path / "tokenizer.model"
    model.write_bytes(pieces.serialized_model_proto())
    convert(model, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), "policy")
    rng = Random(2)
    texts = [random_text(rng) for _ in range(1_000)]
    texts += [message.content for prompt in held_out_prompts(300) for message in prompt.messages]
    texts += ["".join(rng.choice(" \n=-_*#.!0a") * rng.randrange(1, 20) for _ in range(5)) for _ in range(300)]
    for text in texts:
        assert tokenizer.encode(text) == pieces.encode(text), repr(text)


def test_the_conversion_of_the_demo_vocabulary_is_the_shipped_one(tmp_path: Path) -> None:
    convert(weights("policy") / "tokenizer.model", tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / file).read_bytes() == (weights("policy") / file).read_bytes()


def test_ids_decode_to_the_text_they_came_from(tokenizer: Tokenizer) -> None:
    rng = Random(1)
    for text in (random_text(rng) for _ in range(500)):
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_control_ids_are_llama_2s(fast: PreTrainedTokenizerBase, pieces: sentencepiece.SentencePieceProcessor) -> None:
    assert (fast.unk_token_id, fast.bos_token_id, fast.eos_token_id) == (0, 1, 2)
    assert (pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()) == (0, 1, 2, -1)
    assert fast("Hello").input_ids[0] == 1
    assert fast.model_max_length == 2_048
    assert fast.is_fast
    assert fast.chat_template is None
    assert {pieces.is_byte(index) for index in range(3, 259)} == {True}


def test_a_literal_end_of_sequence_stays_text(tokenizer: Tokenizer) -> None:
    assert 2 not in tokenizer.encode("</s> a</s>b </s>")


@pytest.mark.parametrize("name", ["safety-rm", "helpfulness-rm"])
def test_all_models_share_one_tokenizer(name: ModelName) -> None:
    for file in ("tokenizer.model", "tokenizer.json"):
        assert Path(weights(name) / file).read_bytes() == Path(weights("policy") / file).read_bytes()
    # A trained reward model says what it is padded with.
    own, policys = (json.loads((weights(one) / "tokenizer_config.json").read_text()) for one in (name, "policy"))
    assert own == policys | {"pad_token": "<unk>"}
