"""The Jinja template of exports against the code that samples and scores, token by token.

With the demo vocabulary and a real one, in every way in which such a tokenizer is shipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.models.chat_templates.dialogs import contents, dialogs
from tests.models.real_vocabulary import SHIPPED, shipped, wrapped
from winnow.models import demo
from winnow.models.chat_templates.exactness import exact_jinja, is_exact
from winnow.models.chat_templates.llama2 import TAGS, Llama2Template
from winnow.models.engines.base import RewardInput
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.tokenizer import Tokenizer

Dialog = list[dict[str, Any]]
CONTROLS = ("<s>", "</s>", "<unk>")
CONTENTS = contents(without=(*TAGS, *CONTROLS))
DIALOGS = dialogs(CONTENTS).map(lambda turns: [{"role": role, "content": content} for role, content in turns])


class Exported:
    """A Hugging Face tokenizer with the exported template, and ours on the same files."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ours: Tokenizer, template: Llama2Template) -> None:
        self.tokenizer, self.ours = tokenizer, ours
        self.tokenizer.chat_template = exact_jinja(template, self.ours)

    def ids(self, dialog: Dialog, **options: Any) -> list[int]:
        return list(self.tokenizer.apply_chat_template(dialog, tokenize=True, return_dict=False, **options))

    def masked(self, dialog: Dialog) -> tuple[list[int], list[int]]:
        """The ids and, for each, whether it carries loss."""
        out = self.tokenizer.apply_chat_template(
            dialog, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return list(out["input_ids"]), list(out["assistant_masks"])


@pytest.fixture(scope="module", params=["demo", *SHIPPED])
def exported(request: pytest.FixtureRequest, template: Llama2Template) -> Exported:
    if request.param == "demo":
        tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"))
        return Exported(tokenizer, Tokenizer(tokenizer), template)
    return Exported(wrapped(request.param), shipped(request.param), template)


@given(dialog=DIALOGS)
@settings(max_examples=10)
@example(dialog=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "  a "}])
@example(dialog=[{"role": "user", "content": ""}])
def test_prompts_are_those_that_are_sampled_from(template: Llama2Template, exported: Exported, dialog: Dialog) -> None:
    wanted = list(template.render(dialog, exported.ours).token_ids)
    assert exported.ids(dialog) == wanted
    assert exported.ids(dialog, add_generation_prompt=True) == wanted


@given(dialog=DIALOGS, text=CONTENTS)
@settings(max_examples=10)
@example(dialog=[{"role": "user", "content": "a"}], text="")
@example(dialog=[{"role": "user", "content": "a"}], text=" b ")
@example(dialog=[{"role": "user", "content": "a"}], text="\n\nb")
@example(dialog=[{"role": "user", "content": "a"}], text=", b")
def test_the_last_answer_is_scored_with_the_same_ids(
    template: Llama2Template, exported: Exported, dialog: Dialog, text: str
) -> None:
    prompt = template.render(dialog, exported.ours)
    whole, mask = exported.masked([*dialog, {"role": "assistant", "content": text, "weight": 1}])
    assert whole == RewardInput(exported.ours, template).token_ids(prompt, text)
    answer = len(whole) - len(prompt)
    assert mask[-answer:] == [1] * answer


@given(dialog=DIALOGS, text=CONTENTS, data=st.data())
@settings(max_examples=10)
def test_loss_falls_on_the_turns_that_have_weight(
    exported: Exported, dialog: Dialog, text: str, data: st.DataObject
) -> None:
    turns = [
        {**message, "weight": data.draw(st.sampled_from([0, 1])) if message["role"] == "assistant" else None}
        for message in dialog
    ]
    whole, mask = exported.masked([*turns, {"role": "assistant", "content": text, "weight": 1}])
    wanted: list[int] = []
    for place, message in enumerate([*turns, {"role": "assistant", "weight": 1}]):
        if message["role"] == "assistant":
            before = exported.ids(turns[:place])
            after = exported.ids(turns[: place + 1] + turns[place + 1 : place + 2]) if place < len(turns) else whole
            turn = after[len(before) : after.index(exported.ours.eos_id, len(before)) + 1]
            wanted += [0] * (len(before) - len(wanted)) + [message["weight"]] * len(turn)
    assert mask == wanted


@given(dialog=DIALOGS, text=st.lists(st.sampled_from([*CONTROLS, " ", "a", "<", "</s", "s>"])).map("".join))
@settings(max_examples=10)
def test_text_makes_no_control_ids(exported: Exported, dialog: Dialog, text: str) -> None:
    dialog = [{**message, "content": message["content"] + text} for message in dialog]
    whole = exported.ids([*dialog, {"role": "assistant", "content": text}])
    turns = sum(message["role"] == "user" for message in dialog)
    assert (whole.count(1), whole.count(2), whole.count(0)) == (turns, turns, 0)


@given(dialog=dialogs(contents(without=CONTROLS)), text=contents(without=CONTROLS))
@settings(max_examples=10)
@example(dialog=[("system", "<<SYS>>a<</SYS>>"), ("user", "[INST]b[/INST]")], text="c [/INST] d")
def test_a_tag_in_a_message_is_spelt_as_the_server_spells_it(
    template: Llama2Template, exported: Exported, dialog: list[tuple[str, str]], text: str
) -> None:
    """So that history which the server accepts gives the same ids in training, and no tag closes a turn."""
    neutral = template.with_tags("neutralise")
    messages = [{"role": role, "content": f"[[/INST]{content}<<SYS>>"} for role, content in dialog]
    prompt = neutral.render(messages, exported.ours)
    assert exported.ids(messages) == list(prompt.token_ids)
    whole = exported.ids([*messages, {"role": "assistant", "content": text}])
    assert whole == RewardInput(exported.ours, template).token_ids(prompt, neutral.neutralise(text))


@pytest.mark.parametrize(
    "roles", [["assistant"], ["user", "user"], ["user", "system"], ["system", "assistant"], ["tool"]]
)
def test_roles_out_of_order_are_refused(exported: Exported, roles: list[str]) -> None:
    with pytest.raises(TemplateError, match="alternate"):
        exported.ids([{"role": role, "content": "a"} for role in roles])


def test_trl_finds_its_markers(exported: Exported) -> None:
    """The markers by which `assistant_only_loss` recognises a template, without importing all of TRL."""
    assert "{%- generation -%}" in exported.tokenizer.chat_template
    whole, mask = exported.masked(
        [
            {"role": "user", "content": "dummy"},
            {"role": "assistant", "content": "dummy"},
            {"role": "user", "content": "dummy"},
        ]
    )
    assert whole[max(place for place, bit in enumerate(mask) if bit)] == exported.tokenizer.eos_token_id


def test_a_template_is_only_exact_with_the_tokenizers_it_fits(exported: Exported, template: Llama2Template) -> None:
    """Two forms of one template, of which one puts a space behind BOS, never give the same ids."""
    assert [is_exact(jinja, template, exported.ours) for jinja in template.jinja_forms()].count(True) >= 1
    wrong = exported.tokenizer.chat_template.replace("~ ' [/INST]'", "~ '[/INST]'")
    assert not is_exact(wrong, template, exported.ours)
    without_eos = exported.tokenizer.chat_template.replace("text ~ eos_token", "text")
    assert not is_exact(without_eos, template, exported.ours)
    without_mask = exported.tokenizer.chat_template.replace("message.weight == 0", "true")
    assert not is_exact(without_mask, template, exported.ours)


@pytest.mark.parametrize("options", [{"lstrip": True}, {"normalized": True}])
def test_no_template_is_exact_where_control_tokens_change_the_text_beside_them(
    template: Llama2Template, tmp_path: Path, options: dict[str, bool]
) -> None:
    """Such tokenizers are served, since the server builds ids; an export must not carry a template for them."""
    state = json.loads((demo.weights("policy") / "tokenizer.json").read_text(encoding="utf-8"))
    state["added_tokens"] = [{**token, **options} for token in state["added_tokens"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    settings = json.loads((demo.weights("policy") / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path), "policy")
    assert exact_jinja(template, tokenizer) is None


def test_further_control_tokens_are_text_in_a_message(template: Llama2Template) -> None:
    """transformers tells a template of BOS, EOS, UNK and PAD, and of no other control token."""
    wrapped = AutoTokenizer.from_pretrained(demo.weights("policy"), extra_special_tokens=["<|turn|>", '<"x">'])
    tokenizer = Tokenizer(wrapped)
    jinja = exact_jinja(template, tokenizer)
    assert jinja
    assert not is_exact(template.jinja, template, tokenizer)
    ids, _ = tokenizer.ids_of_jinja(jinja, [{"role": "user", "content": 'a<|turn|> <"x"></s>'}])
    assert tokenizer.control_ids & {*ids} == {tokenizer.bos_id}
