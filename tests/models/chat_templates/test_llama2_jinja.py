"""The exported chat template against the template that sampled and scored, token by token."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from winnow.models import demo
from winnow.models.chat_templates.llama2 import TAGS, Llama2Template

Dialog = list[dict[str, Any]]
CONTROLS = ("<s>", "</s>", "<unk>")
TRICKY = [
    "[ INST ]",
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
    "</",
    "s>",
    "<",
    "{{ x }}",
    "{%",
]

words = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(TRICKY))
contents = (
    st.lists(words, max_size=4).map("".join).filter(lambda text: not any(name in text for name in (*TAGS, *CONTROLS)))
)


@st.composite
def dialogs(draw: st.DrawFn) -> Dialog:
    """Dialogs that end in a user message."""
    roles = [*(["system"] if draw(st.booleans()) else []), *["user", "assistant"] * draw(st.integers(0, 3)), "user"]
    return [{"role": role, "content": draw(contents)} for role in roles]


_loaded: list[PreTrainedTokenizerBase] = []


def tokenizer() -> PreTrainedTokenizerBase:
    """Loaded once: Hypothesis forbids fixtures of a function's scope. It has the exported template."""
    if not _loaded:
        loaded = AutoTokenizer.from_pretrained(demo.weights("policy"))
        loaded.chat_template = (
            files("winnow.server.distill.export").joinpath("llama2.jinja").read_text(encoding="utf-8")
        )
        _loaded.append(loaded)
    return _loaded[0]


def ids(dialog: Dialog, **options: Any) -> list[int]:
    return list(tokenizer().apply_chat_template(dialog, tokenize=True, return_dict=False, **options))


def masked(dialog: Dialog) -> tuple[list[int], list[int]]:
    """The ids and, for each, whether it carries loss."""
    out = tokenizer().apply_chat_template(dialog, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return list(out["input_ids"]), list(out["assistant_masks"])


@given(dialogs())
@settings(max_examples=100, deadline=None)
@example([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "  a "}])
@example([{"role": "user", "content": ""}])
def test_prompts_are_what_was_sampled_behind(dialog: Dialog) -> None:
    wanted = list(Llama2Template(tokenizer()).render(dialog).token_ids)
    assert ids(dialog) == wanted
    assert ids(dialog, add_generation_prompt=True) == wanted


@given(dialogs(), contents)
@settings(max_examples=100, deadline=None)
@example([{"role": "user", "content": "a"}], "")
@example([{"role": "user", "content": "a"}], " b ")
@example([{"role": "user", "content": "a"}], "\n\nb")
def test_the_last_answer_is_what_was_scored(dialog: Dialog, text: str) -> None:
    template = Llama2Template(tokenizer())
    answer = [*template.encode_answer(text), template.eos_id]
    whole, mask = masked([*dialog, {"role": "assistant", "content": text, "weight": 1}])
    assert whole == [*template.render(dialog).token_ids, *answer]
    assert mask[-len(answer) :] == [1] * len(answer)


@given(dialogs(), contents, st.data())
@settings(max_examples=100, deadline=None)
def test_loss_falls_on_the_turns_that_have_weight(dialog: Dialog, text: str, data: st.DataObject) -> None:
    turns = [
        {**message, "weight": data.draw(st.sampled_from([0, 1])) if message["role"] == "assistant" else None}
        for message in dialog
    ]
    whole, mask = masked([*turns, {"role": "assistant", "content": text, "weight": 1}])
    template = Llama2Template(tokenizer())
    wanted: list[int] = []
    for place, message in enumerate([*turns, {"role": "assistant", "weight": 1}]):
        if message["role"] == "assistant":
            before = ids(turns[:place])
            after = ids(turns[: place + 1] + turns[place + 1 : place + 2]) if place < len(turns) else whole
            turn = after[len(before) : after.index(template.eos_id, len(before)) + 1]
            wanted += [0] * (len(before) - len(wanted)) + [message["weight"]] * len(turn)
    assert mask == wanted


@given(dialogs(), st.lists(st.sampled_from([*CONTROLS, " ", "a", "<", "</s", "s>"])).map("".join))
@settings(max_examples=100, deadline=None)
def test_text_makes_no_control_ids(dialog: Dialog, text: str) -> None:
    dialog = [{**message, "content": message["content"] + text} for message in dialog]
    whole = ids([*dialog, {"role": "assistant", "content": text}])
    turns = sum(message["role"] == "user" for message in dialog)
    assert (whole.count(1), whole.count(2), whole.count(0)) == (turns, turns, 0)


@pytest.mark.parametrize(
    "roles", [["assistant"], ["user", "user"], ["user", "system"], ["system", "assistant"], ["tool"]]
)
def test_roles_out_of_order_are_refused(roles: list[str]) -> None:
    with pytest.raises(TemplateError, match="alternate"):
        ids([{"role": role, "content": "a"} for role in roles])


def test_trl_finds_what_it_looks_for() -> None:
    """The markers by which `assistant_only_loss` knows a template, without importing all of TRL."""
    assert "{%- generation -%}" in tokenizer().chat_template
    whole, mask = masked(
        [
            {"role": "user", "content": "dummy"},
            {"role": "assistant", "content": "dummy"},
            {"role": "user", "content": "dummy"},
        ]
    )
    assert whole[max(place for place, bit in enumerate(mask) if bit)] == tokenizer().eos_token_id
