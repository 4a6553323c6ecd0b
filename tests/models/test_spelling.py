"""The tokenizers that are accepted: those whose tokens spell their text, in every way in which they are shipped."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.models.byte_level import FAMILIES
from tests.models.byte_level import ship as ship_byte_level
from tests.models.byte_level import shipped as byte_level
from tests.models.chat_templates.test_jinja import NAMES, controls_of
from tests.models.real_vocabulary import SHIPPED, pieces, pieces_in_the_middle, ship, shipped
from tests.models.test_tokenizer import FRAGMENTS
from winnow.models import demo
from winnow.models.chat_templates.exactness import exact_jinja
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer

BASIC_LATIN = st.characters(max_codepoint=0x17F)
words = st.one_of(st.text(BASIC_LATIN, max_size=8), st.text(st.characters(exclude_categories=["Cs"]), max_size=4))
texts = st.lists(st.one_of(words, FRAGMENTS, st.sampled_from(["▁", "▁▁", "   ", "\r\n", "{", '"', "$", "="]))).map(
    "".join
)


@pytest.mark.parametrize("way", SHIPPED)
@given(text=texts)
@example(text="")
@example(text=" ")
@example(text="   ")
@example(text=" Hello")
@example(text="▁Hello")
@example(text="\nHello")
@example(text=", there was")
@settings(max_examples=20)
def test_ids_are_sentencepieces_whichever_class_ships_it(way: str, text: str) -> None:
    """Some classes drop a leading space, and in the middle of a text `", there was"` must get no space of its own."""
    tokenizer = shipped(way)
    assert tokenizer.encode(text) == pieces().encode(text)
    assert list(tokenizer.raw_prompt(text).token_ids) == [1, *pieces().encode(text)]
    assert tokenizer.encode_continuation(text) == pieces_in_the_middle().encode(text)


@pytest.mark.parametrize("way", SHIPPED)
@given(text=texts, data=st.data())
@settings(max_examples=20)
def test_an_answer_cut_at_any_token_keeps_its_whole_characters(way: str, text: str, data: st.DataObject) -> None:
    """Regression: a cut inside a character turned the run of byte tokens before it into U+FFFD."""
    tokenizer = shipped(way)
    ids = tokenizer.encode_continuation(f" {text}")
    cut = ids[: data.draw(st.integers(0, len(ids)))]
    kept = tokenizer.decode_continuation(cut)
    assert f" {text}".replace("▁", " ").startswith(kept)
    dropped = b"".join(map(tokenizer.token_bytes, cut)).removeprefix(kept.encode())
    assert len(dropped) < 4
    assert not dropped.decode(errors="ignore")
    assert tokenizer.decode([*tokenizer.encode("x"), *cut]) == "x" + kept


@given(text=texts, data=st.data())
@settings(max_examples=200)
def test_two_halves_of_a_text_spell_it(text: str, data: st.DataObject) -> None:
    """A prompt that is scored with its continuation: the scored text is the text, wherever it is cut."""
    tokenizer = shipped("LlamaTokenizer")
    cut = data.draw(st.integers(0, len(text)))
    ids = tokenizer.encode(text[:cut]) + tokenizer.encode_continuation(text[cut:])
    spelt = b"".join(map(tokenizer.token_bytes, ids)).decode()
    assert spelt.removeprefix(" " if cut else "") == text.replace("▁", " ")


@pytest.mark.parametrize("start", [*",(:;.!?)]}>'\"-/%$={_|", "...", '":', "),", "\t", "\n", "  ", "🙂", "中"])
def test_a_first_character_is_never_joined_to_a_space(start: str) -> None:
    ids = shipped("LlamaTokenizer").encode_continuation(start + "there was")
    assert ids == pieces_in_the_middle().encode(start + "there was")
    assert shipped("LlamaTokenizer").token_bytes(ids[0])[:1] == start.encode()[:1]


@pytest.mark.parametrize("way", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_truncation_and_padding_of_the_files_are_without_effect(way: str, tmp_path: Path) -> None:
    """As a tokenizer is saved after training: padding hid its dummy space, and it was refused as of another kind."""
    saved = FastTokenizer.from_file(str(ship(way, tmp_path) / "tokenizer.json"))
    saved.enable_padding(length=16, pad_token="<unk>")
    saved.enable_truncation(4)
    saved.save(str(tmp_path / "tokenizer.json"))
    text = "A text of more than four tokens, and 中文."
    assert load_tokenizer(str(tmp_path), "policy").encode(text) == shipped(way).encode(text) == pieces().encode(text)


def test_a_tokenizer_without_a_dummy_space_gets_none(tmp_path: Path, template: Llama2Template) -> None:
    ship("LlamaTokenizer", tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_prefix_space": False}))
    tokenizer = load_tokenizer(str(tmp_path), "policy")
    for text in ("", " ", "Hello", "  Hello", "[INST] a", "中\n"):
        assert tokenizer.encode(text) == pieces_in_the_middle().encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert exact_jinja(template, tokenizer)


def word_piece() -> FastTokenizer:
    tokenizer = FastTokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    return trained(tokenizer, trainers.WordPieceTrainer)


def word_level() -> FastTokenizer:
    tokenizer = FastTokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer, trainers.WordLevelTrainer)


def metaspace(model: Any, trainer: Any, **options: Any) -> FastTokenizer:
    tokenizer = FastTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return trained(tokenizer, trainer, **options)


def unigram() -> FastTokenizer:
    return metaspace(models.Unigram(), trainers.UnigramTrainer, unk_token="<unk>")


def without_byte_fallback() -> FastTokenizer:
    return metaspace(models.BPE(unk_token="<unk>"), trainers.BpeTrainer)


def trained(tokenizer: FastTokenizer, trainer: Any, **options: Any) -> FastTokenizer:
    lines = ["the capital of France is Paris, and fruits are good", "a b c d e f g h i j k"] * 20
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        lines, trainer(vocab_size=400, special_tokens=special, show_progress=False, **options)
    )
    return tokenizer


def demo_with(change: Callable[[FastTokenizer], None]) -> Callable[[], FastTokenizer]:
    def changed() -> FastTokenizer:
        tokenizer = FastTokenizer.from_file(str(demo.weights("policy") / "tokenizer.json"))
        change(tokenizer)
        return tokenizer

    return changed


def decodes_no_bytes(tokenizer: FastTokenizer) -> None:
    tokenizer.decoder = decoders.Metaspace()


def squeezes_spaces(tokenizer: FastTokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), tokenizer.normalizer])


def normalises(tokenizer: FastTokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), tokenizer.normalizer])


OTHER_KINDS: dict[str, Callable[[], FastTokenizer]] = {
    "WordPiece": word_piece,
    "words": word_level,
    "Unigram": unigram,
    "no byte fallback": without_byte_fallback,
    "bytes that are not decoded": demo_with(decodes_no_bytes),
    "spaces that are stripped": demo_with(squeezes_spaces),
    "wide brackets that become a tag": demo_with(normalises),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_tokenizer_of_another_kind_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=OTHER_KINDS[kind](), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="another kind than Llama 2's") as caught:
        load_tokenizer(str(tmp_path), "policy")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_with_one_wrong_token_is_refused(tmp_path: Path) -> None:
    """No probe uses it; the whole vocabulary is looked at."""
    state = json.loads((demo.weights("policy") / "tokenizer.json").read_text())
    state["model"]["vocab"]["Ġfruits"] = len(state["model"]["vocab"])
    state["decoder"]["decoders"].insert(0, {"type": "Replace", "pattern": {"String": "Ġ"}, "content": " "})
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    (tmp_path / "tokenizer_config.json").write_text((demo.weights("policy") / "tokenizer_config.json").read_text())
    with pytest.raises(CheckpointError, match="'Ġfruits' stands for ' fruits'"):
        load_tokenizer(str(tmp_path), "policy")


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.lists(st.one_of(words, FRAGMENTS, st.sampled_from(NAMES))).map("".join), data=st.data())
@settings(max_examples=40)
def test_byte_level_tokens_spell_their_bytes(family: str, text: str, data: st.DataObject) -> None:
    own = byte_level(family).ours
    ids = own.encode_continuation(text)
    spelt = unicodedata.normalize("NFC", text) if FAMILIES[family].composes else text
    assert b"".join(map(own.token_bytes, ids)) == spelt.encode()
    assert own.encode(text) == ids
    assert own.decode(ids) == own.decode_continuation(ids) == spelt
    assert not controls_of(byte_level(family), ids)
    cut = ids[: data.draw(st.integers(0, len(ids)))]
    assert spelt.startswith(own.decode_continuation(cut))
    assert own.fewest_tokens(spelt) <= len(ids)


@given(text=st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x2FF), max_size=30))
@settings(max_examples=200)
def test_byte_level_ids_are_transformers_own(text: str) -> None:
    for family in FAMILIES:
        own = byte_level(family)
        if not any(name in text for name in own.theirs.get_added_vocab()):
            assert own.ours.encode(text) == own.theirs.encode(text, add_special_tokens=False)
            assert list(own.ours.raw_prompt(text).token_ids) == own.theirs.encode(text)


def test_a_byte_level_vocabulary_with_a_dummy_space(tmp_path: Path) -> None:
    """As RoBERTa's: the space at the start of a text is the tokenizer's, not the text's."""
    ship_byte_level("ChatML", tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path), "policy")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.dummy_space == " "
    assert tokenizer.encode("Paris, fruits") == theirs.encode("Paris, fruits", add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode("Paris")) == "Paris"
    assert tokenizer.encode_continuation(" Paris") == tokenizer.encode("Paris")


def test_a_vocabulary_in_two_files_is_read(tmp_path: Path) -> None:
    """Older byte-level checkpoints have vocab.json and merges.txt instead of tokenizer.json."""
    ship_byte_level("ChatML", tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps(state["model"]["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in state["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    whole = load_tokenizer(str(tmp_path), "policy")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": "GPT2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<|endoftext|>"}))
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(str(tmp_path), "policy").encode("the fruits are") == whole.encode("the fruits are")


def test_an_added_control_token_is_one() -> None:
    """Its name is no text, also where no configuration names it."""
    wrapped = AutoTokenizer.from_pretrained(demo.weights("policy"))
    wrapped.backend_tokenizer.add_special_tokens(["<|turn|>"])
    tokenizer = Tokenizer(wrapped)
    added = wrapped.convert_tokens_to_ids("<|turn|>")
    assert added in tokenizer.control_ids
    assert added not in tokenizer.encode("<|turn|>")
    assert tokenizer.token_bytes(added) == b""
