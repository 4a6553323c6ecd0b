"""Control tokens in rendered dialogs: a template's are tokens, and the same names in a message's text stay text.

A chat template gives one string, in which both look alike. So names in messages are replaced by unguessable words
before a template sees them (`ControlTokens.shielded`), and put back when the template's own names have been replaced
by other unguessable words, which are the names of the control tokens in a copy of the tokenizer. All the rest is the
tokenizer's own: merges across the borders of messages, and what a control token does to the space beside it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as FastTokenizer

_MARKUP = re.compile(r"<\S+>|\[\S+\]")
"""An added token that steers a model, even where its vocabulary does not call it special: `<tool_call>`."""
_TAG = re.compile(r"</?\w+>")
"""One that a model writes into its answers and a template looks for in them: `</think>`."""


def control_tokens(added: Mapping[int, AddedToken]) -> dict[str, int]:
    """Return the control tokens among a vocabulary's `added` tokens: the special ones, and what is written as markup.

    Words and runs of spaces that were added to a vocabulary are text.
    """
    return {
        token.content: token_id
        for token_id, token in sorted(added.items())
        if token.content and (token.special or _MARKUP.fullmatch(token.content))
    }


def secret_names(names: Iterable[str]) -> dict[str, str]:
    """Return another name for each, which no text holds: nobody can guess it.

    Letters and digits only: no template and no normalizer changes them.
    """
    word = secrets.token_hex(8)
    return {name: f"q{word}t{index}z" for index, name in enumerate(names)}


def renamed(backend: FastTokenizer, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the state of `backend` with other names for some added tokens, so that no text makes one by its old name.

    Neither as an added token, nor as a word of the vocabulary, which some tokenizers look up whole.
    """
    state: dict[str, Any] = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = state["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {names.get(name, name): token_id for name, token_id in model["vocab"].items()}
    elif isinstance(model.get("vocab"), list):  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(name, name), score] for name, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if merges := model.get("merges"):
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in merges)
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
    return {**state, "post_processor": None, "truncation": None, "padding": None}


class ControlTokens:
    """The control tokens of one tokenizer, for the texts of messages and for rendered dialogs."""

    def __init__(self, backend: FastTokenizer) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        ids = control_tokens(backend.get_added_tokens_decoder())
        word = secrets.token_hex(8)
        self._marks = secret_names(ids)
        self._names = _any_of(ids)
        self._untagged = _any_of([name for name in ids if not _TAG.fullmatch(name) or _is_special(backend, ids[name])])
        self._shields = re.compile(f"q{word}s((?:[0-9a-f]{{2}})+)z")
        self._shield = f"q{word}s{{}}z"
        self._starts = {name[:size] for name in ids for size in range(1, len(name))}
        self._ends = {name[size:] for name in ids for size in range(1, len(name))}
        self._longest = max(map(len, ids), default=0)
        self._backend = FastTokenizer.from_str(json.dumps(renamed(backend, self._marks)))
        found = {self._backend.token_to_id(mark): ids[name] for name, mark in self._marks.items()}
        self._ids = {ours: theirs for ours, theirs in found.items() if ours != theirs}

    def shielded(self, text: str, *, is_answer: bool = False) -> str:
        """Return the `text` of a message for a template: no control token's name is in it, whole or in part at an edge.

        In an answer the tags stay that a model writes there, and that templates look for.
        """
        names = self._untagged if is_answer else self._names
        text = names.sub(lambda found: self._hidden(found[0]), text) if names else text
        return self._shielded_edges(text)

    def _shielded_edges(self, text: str) -> str:
        """Return `text` without a part of a name at its start or end, which a template's text could complete."""
        inner = text.strip()
        start = text.find(inner)
        longest = range(min(self._longest, len(inner)), 0, -1)
        head = next((size for size in longest if inner[:size] in self._ends), 0)
        rest = inner[head:]
        tail = next((size for size in longest if size <= len(rest) and rest[-size:] in self._starts), 0)
        if not head and not tail:
            return text
        middle = rest[: len(rest) - tail]
        shown = f"{self._hidden(inner[:head])}{middle}{self._hidden(rest[len(middle) :])}"
        return text[:start] + shown + text[start + len(inner) :]

    def _hidden(self, text: str) -> str:
        return self._shield.format(text.encode().hex()) if text else ""

    def shown(self, rendered: str) -> str:
        """Return a rendered text as the template would have rendered the messages' own texts."""
        return self._shields.sub(lambda found: bytes.fromhex(found[1]).decode(), rendered)

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of a rendered dialog: of control tokens for the names in it that are not shielded."""
        if self._names:
            rendered = self._names.sub(lambda found: self._marks[found[0]], rendered)
        return self.encode_text(self.shown(rendered))

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a plain text, in which every name is text."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [self._ids.get(token_id, token_id) for token_id in ids] if self._ids else ids


def _is_special(backend: FastTokenizer, token_id: int) -> bool:
    return bool(backend.get_added_tokens_decoder()[token_id].special)


def _any_of(names: Any) -> re.Pattern[str] | None:
    """Return a pattern of any of the names, the longest first; None for none."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
