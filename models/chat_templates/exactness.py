"""Whether a Jinja template gives a tokenizer the ids that were sampled and scored, tried on dialogs.

Exports carry a template for trainers, which render text and tokenise it. The same vocabulary is shipped with tokenizers
that treat the text behind a control token differently, so the form of the template is chosen by the ids it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import DialogError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message

TEXTS = ("Hi", "  a ", "", ", and", "\n\nb\t(c)", "中文 🙂", " e\n", '{"x": [1, 2]}', "(d) naïve   é", ": 0123")
"""Contents of the messages. None spells a control token: text that is rendered cannot tell the two apart."""

PLAIN = tuple(text.strip() for text in TEXTS if text.strip())
"""The same for a template that may take white space off, as the tokenizer's own may."""


def exact_jinja(template: ChatTemplate, tokenizer: Tokenizer) -> str | None:
    """Return the form of `template` that is exact with `tokenizer`, or None if none is."""
    if template.digest:
        return template.jinja if is_exact(template.jinja, template, tokenizer) else None
    more = [name for name in tokenizer.control_tokens if _reads(template.jinja, tokenizer, name)]
    return next((jinja for jinja in template.jinja_forms(more) if is_exact(jinja, template, tokenizer)), None)


def is_exact(jinja: str, template: ChatTemplate, tokenizer: Tokenizer) -> bool:
    """Whether `jinja` gives the ids of `template`, with loss on answers alone, and no text makes a control token.

    A tokenizer's own template is asked for less: that it gives the ids of prompts and, behind them, of answers. It
    marks no loss, and in its text names of control tokens are tokens.
    """
    if template.digest:
        return all(_agrees_plainly(jinja, template, tokenizer, *one) for one in _dialogs(PLAIN))
    if any(_reads(jinja, tokenizer, name) for name in tokenizer.control_tokens):
        return False
    return all(_agrees(jinja, template, tokenizer, dialog, answer) for dialog, answer in _dialogs())


def _reads(jinja: str, tokenizer: Tokenizer, name: str) -> bool:
    """Whether a user who writes `name` gets the control token, besides the BOS of the turn."""
    ids, _ = tokenizer.ids_of_jinja(jinja, [{"role": "user", "content": f"a{name}b"}])
    return not tokenizer.control_ids.isdisjoint(ids[1:])


def _agrees(jinja: str, template: ChatTemplate, tokenizer: Tokenizer, dialog: Sequence[Message], answer: str) -> bool:
    prompt = template.render(dialog, tokenizer)
    scored = [*tokenizer.encode_answer(prompt, answer), tokenizer.eos_id]
    messages = [{**message.as_dict(), "weight": 0} for message in dialog]
    if tokenizer.ids_of_jinja(jinja, messages)[0] != list(prompt.token_ids):
        return False
    wanted = [*prompt.token_ids, *scored], [0] * len(prompt) + [1] * len(scored)
    return tokenizer.ids_of_jinja(jinja, [*messages, {"role": "assistant", "content": answer, "weight": 1}]) == wanted


def _agrees_plainly(
    jinja: str, template: ChatTemplate, tokenizer: Tokenizer, dialog: Sequence[Message], answer: str
) -> bool:
    try:
        prompt = template.render(dialog, tokenizer)
    except DialogError:  # it knows no system messages
        return True
    scored = [*prompt.token_ids, *tokenizer.encode_answer(prompt, answer), tokenizer.eos_id]
    messages = [message.as_dict() for message in dialog]
    if tokenizer.apply_jinja(jinja, messages, to_answer=True) != list(prompt.token_ids):
        return False
    whole = tokenizer.apply_jinja(jinja, [*messages, {"role": "assistant", "content": answer}], to_answer=False)
    return whole[: len(scored)] == scored


def _dialogs(contents: Sequence[str] = TEXTS) -> Iterator[tuple[list[Message], str]]:
    """Yield dialogs of one to three turns, with and without a system message, and an answer to each."""
    texts = cycle(contents)
    for turns in (1, 2, 3):
        for roles in (["user", "assistant"] * turns, ["system", *["user", "assistant"] * turns]):
            for _ in contents[:5]:
                contents = list(islice(texts, len(roles)))
                next(texts)
                yield [Message(*turn) for turn in zip(roles, contents, strict=True)][:-1], contents[-1]
