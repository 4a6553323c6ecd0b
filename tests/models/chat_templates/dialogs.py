"""Generated dialogs, with text that a tokenizer or a template may take for its own."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

TRICKY = (
    "[ INST ]", "[inst]", "<<sys>>", "<0x0A>", "▁", " ", "\n", "\t", "  ", "é", "🙂", "\u2028", "\x00",
    "</s>", "<s>", "<unk>", "</", "s>", "<", "{{ x }}", "{%",
)  # fmt: skip


def contents(without: Sequence[str]) -> st.SearchStrategy[str]:
    """Text of a message that contains none of `without`; surrogates are not Unicode text."""
    words = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(TRICKY))
    return st.lists(words, max_size=4).map("".join).filter(lambda text: not any(tag in text for tag in without))


@st.composite
def dialogs(draw: st.DrawFn, content: st.SearchStrategy[str]) -> list[tuple[str, str]]:
    """Roles and contents: a system message or none, up to three turns, and a user message."""
    roles = [*(["system"] if draw(st.booleans()) else []), *["user", "assistant"] * draw(st.integers(0, 3)), "user"]
    return [(role, draw(content)) for role in roles]
