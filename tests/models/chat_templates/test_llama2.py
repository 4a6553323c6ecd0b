"""The template against Meta's algorithm, written out over SentencePiece itself."""

from __future__ import annotations

import itertools

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from winnow.models import demo
from winnow.models.chat_templates.llama2 import TAGS, Llama2Template
from winnow.models.errors import DialogError
from winnow.models.types import Message

PIECES = sentencepiece.SentencePieceProcessor(model_file=str(demo.weights("policy") / "tokenizer.model"))
TRICKY = [
    "</s>",
    "<s>",
    "<unk>",
    "[ INST ]",
    "[inst]",
    "<<sys>>",
    "<0x0A>",
    "▁",
    " ",
    "\n",
    "\t",
    "  ",
    "é",
    "🙂",
    "\u2028",
    "\x00",
]


def chat_completion_ids(dialog: list[tuple[str, str]]) -> list[int]:
    """What `llama/generation.py` builds for one dialog; bos and eos are added by id, never by text."""
    if dialog[0][0] == "system":
        merged = "<<SYS>>\n" + dialog[0][1] + "\n<</SYS>>\n\n" + dialog[1][1]
        dialog = [(dialog[1][0], merged), *dialog[2:]]
    ids: list[int] = []
    for (_, prompt), (_, answer) in zip(dialog[::2], dialog[1::2], strict=False):
        ids += [1, *PIECES.encode(f"[INST] {prompt.strip()} [/INST] {answer.strip()} "), 2]
    return [*ids, 1, *PIECES.encode(f"[INST] {dialog[-1][1].strip()} [/INST]")]


# U+0000 never survives HTTP bodies as text that matters, and surrogates are not Unicode text.
words = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(TRICKY))
contents = st.lists(words, max_size=4).map("".join).filter(lambda text: not any(tag in text for tag in TAGS))


@st.composite
def dialogs(draw: st.DrawFn) -> list[tuple[str, str]]:
    turns = draw(st.integers(0, 3))
    roles = [*(["system"] if draw(st.booleans()) else []), *["user", "assistant"] * turns, "user"]
    return [(role, draw(contents)) for role in roles]


@given(dialogs())
@settings(max_examples=500, deadline=None)
@example([("system", "Be kind."), ("user", "  leading space survives after the system block ")])
@example([("user", "a"), ("assistant", " b "), ("user", "</s><s>c")])
@example([("user", "")])
def test_ids_equal_metas(dialog: list[tuple[str, str]]) -> None:
    ids = _template().render([Message(*turn) for turn in dialog]).token_ids
    assert list(ids) == chat_completion_ids(dialog)


@given(dialogs())
@settings(max_examples=100, deadline=None)
def test_control_ids_come_from_turns_alone(dialog: list[tuple[str, str]]) -> None:
    ids = _template().render([Message(*turn) for turn in dialog]).token_ids
    turns = sum(role == "user" for role, _ in dialog)
    assert ids.count(1) == turns
    assert ids.count(2) == turns - 1
    assert ids[0] == 1 != ids[1]


_cache: list[Llama2Template] = []


def _template() -> Llama2Template:
    """Hypothesis re-runs a test many times and forbids function-scoped fixtures; loading once is enough."""
    if not _cache:
        from transformers import AutoTokenizer

        _cache.append(Llama2Template(AutoTokenizer.from_pretrained(demo.weights("policy"))))
    return _cache[0]


def test_mappings_are_messages(template: Llama2Template) -> None:
    dialog = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert template.render(dialog) == template.render([Message("system", "S"), Message("user", "U")])


def test_rendering_leaves_the_tokenizer_as_it_was(template: Llama2Template, tokenizer: PreTrainedTokenizerBase) -> None:
    before = tokenizer.encode("a </s> b")
    template.render([Message("user", "a </s> b")])
    assert tokenizer.encode("a </s> b") == before


U, A, S = ("user", "u"), ("assistant", "a"), ("system", "s")


@pytest.mark.parametrize(
    ("dialog", "index", "word"),
    [
        ([], None, "empty"),
        ([A], 0, "user"),
        ([U, A], 1, "last"),
        ([U, U], 1, "alternate"),
        ([U, A, A, U], 2, "alternate"),
        ([S], 0, "alone"),
        ([S, A, U], 1, "user"),
        ([U, S, U], 1, "first"),
        ([("tool", "t"), U], 0, "role"),
    ],
)
def test_wrong_order_names_the_message(
    template: Llama2Template, dialog: list[tuple[str, str]], index: int | None, word: str
) -> None:
    with pytest.raises(DialogError, match=word) as caught:
        template.render([Message(*turn) for turn in dialog])
    assert caught.value.index == index
    assert index is None or f"messages[{index}]" in str(caught.value)


@pytest.mark.parametrize(("tag", "role"), list(itertools.product(TAGS, ["system", "user", "assistant"])))
def test_a_tag_in_any_message_is_refused(template: Llama2Template, tag: str, role: str) -> None:
    dialog = [["system", "s"], ["user", "u"], ["assistant", "a"], ["user", "u"]]
    index = [turn[0] for turn in dialog].index(role)
    dialog[index][1] = f"x {tag} y"
    with pytest.raises(DialogError) as caught:
        template.render([Message(*turn) for turn in dialog])
    assert caught.value.index == index
    assert tag in str(caught.value)


def test_content_that_is_not_text_is_refused(template: Llama2Template) -> None:
    for bad in ({"role": "user"}, {"role": "user", "content": None}, "user", {"role": ["user"], "content": "x"}):
        with pytest.raises(DialogError):
            template.render([bad])  # type: ignore[list-item]
