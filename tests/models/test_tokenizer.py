"""The tokenizer: texts to ids and back, at the start and in the middle of a text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from winnow.models import demo
from winnow.models.demo.world import held_out_prompts
from winnow.models.tokenizer import Tokenizer

# U+2581 is SentencePiece's own spelling of a space, and surrogates are not Unicode text.
FRAGMENTS = st.sampled_from(
    [" ", "  ", "\n", "\t", "</s>", "<s>", "[INST]", "<0x0A>", "é", "🙂", "中文", "Paris", "42", ",", "(", ": ", "; "]
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")
texts = st.lists(st.one_of(st.text(CHARACTERS, max_size=12), FRAGMENTS), max_size=5).map("".join)
PUNCTUATION = [*",(:;.!?)]}>'\"-/%", "...", "/>", '":', "),"]
many = settings(max_examples=300)


@many
@given(text=texts)
@example(text="")
@example(text="▁x".replace("▁", " "))
def test_a_continuation_decodes_to_itself(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode_continuation(tokenizer.encode_continuation(text)) == text


@many
@given(text=texts)
def test_a_text_decodes_to_itself(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("start", PUNCTUATION)
@pytest.mark.parametrize("rest", ["", " and so on", "x"])
def test_a_continuation_keeps_its_first_characters_own_spelling(tokenizer: Tokenizer, start: str, rest: str) -> None:
    """Encoded after `[/INST]`, a text that begins with such a character could merge with the bracket before it."""
    text = start + rest
    ids = tokenizer.encode_continuation(text)
    assert tokenizer.decode_continuation(ids) == text
    assert not tokenizer.token_bytes(ids[0]).startswith(b" ")
    assert tokenizer.encode_continuation(" " + text) != ids


@pytest.mark.parametrize("text", [prompt.messages[-1].content for prompt in held_out_prompts(40)])
def test_a_leading_space_is_the_dummy_space_of_a_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode_continuation(" " + text) == tokenizer.encode(text)


@many
@given(text=texts)
def test_a_text_holds_no_control_ids_and_its_bytes_are_its_own(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode_continuation(text)
    assert not tokenizer.control_ids & {*ids}
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.fewest_tokens(text) <= len(tokenizer.encode(text))


def test_control_ids_have_no_bytes_and_leave_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.control_ids == {0, tokenizer.bos_id, tokenizer.eos_id}
    ids = tokenizer.encode_continuation(" Paris")
    for control in tokenizer.control_ids:
        assert tokenizer.token_bytes(control) == b""
        assert tokenizer.decode_continuation([control, *ids, control]) == " Paris"
    assert tokenizer.decode([*tokenizer.encode("Paris"), tokenizer.eos_id]) == "Paris</s>"
    assert tokenizer.decode([*tokenizer.encode("Paris"), tokenizer.eos_id], skip_control=True) == "Paris"


WIDE = st.text(st.characters(min_codepoint=0x4E00, exclude_categories=["Cs"]) | st.sampled_from("aé 🙂"), max_size=8)


@many
@given(text=WIDE, data=st.data())
@example(text="中文字漢語", data=None)
def test_a_cut_inside_a_character_leaves_the_characters_before_it(
    tokenizer: Tokenizer, text: str, data: st.DataObject | None
) -> None:
    """Regression: the whole run of byte tokens became U+FFFD, 14 of them for five characters less one byte."""
    ids = tokenizer.encode_continuation(text)
    size = data.draw(st.integers(0, len(ids))) if data else len(ids) - 1
    spelt = b"".join(map(tokenizer.token_bytes, ids[:size]))
    assert tokenizer.decode_continuation(ids[:size]) == spelt.decode(errors="ignore")
    assert text.startswith(tokenizer.decode_continuation(ids[:size]))
    start = tokenizer.encode(text)
    assert text.startswith(tokenizer.decode(start[: len(start) - 1]))
    assert "\ufffd" not in tokenizer.decode(start[: len(start) - 1])


def test_a_replacement_character_that_the_model_spells_is_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode_continuation(tokenizer.encode_continuation("a\ufffdb")) == "a\ufffdb"


def test_token_names_are_the_vocabularys(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_name(tokenizer.eos_id) == "</s>"
    assert "".join(map(tokenizer.token_name, tokenizer.encode("Paris"))) == "▁Paris"
    assert tokenizer.token_name(1_000_000) == ""


@many
@given(text=texts)
def test_a_raw_prompt_of_text(tokenizer: Tokenizer, text: str) -> None:
    prompt = tokenizer.raw_prompt(text)
    assert list(prompt.token_ids) == [tokenizer.bos_id, *tokenizer.encode(text)]
    assert (prompt.raw_text, prompt.is_raw, prompt.is_safety, prompt.answer_prefix) == (text, True, False, "")


def test_a_raw_prompt_of_ids_keeps_them(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("Hello there"), tokenizer.eos_id]
    prompt = tokenizer.raw_prompt(ids)
    assert list(prompt.token_ids) == ids
    assert (prompt.raw_text, prompt.is_raw, prompt.is_safety) == ("Hello there", True, False)


def test_equality_is_by_vocabulary_and_control_ids(tokenizer: Tokenizer) -> None:
    other = AutoTokenizer.from_pretrained(demo.weights("safety-rm"))
    assert tokenizer.equals(Tokenizer(other))
    other.eos_token = "<unk>"
    assert not tokenizer.equals(Tokenizer(other))


@pytest.mark.parametrize("missing", ["bos_token_id", "eos_token_id"])
def test_a_tokenizer_without_bos_or_eos_is_refused(missing: str) -> None:
    bare = SimpleNamespace(**{"bos_token_id": 1, "eos_token_id": 2, missing: None})
    with pytest.raises(ValueError, match="no BOS or no EOS"):
        Tokenizer(bare)  # type: ignore[arg-type]


def test_the_wrapped_tokenizer_is_not_changed() -> None:
    wrapped = AutoTokenizer.from_pretrained(demo.weights("policy"))
    before = wrapped("a </s> b").input_ids
    tokenizer = Tokenizer(wrapped)
    assert tokenizer.encode("a </s> b") != before[1:]
    tokenizer.raw_prompt("a </s> b")
    assert wrapped("a </s> b").input_ids == before
