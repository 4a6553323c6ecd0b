"""The token ids that a reward model reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.byte_level import shipped
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.corpus import encode
from winnow.models.demo.world import held_out_pairs, held_out_prompts
from winnow.models.engines.base import RewardInput
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Dialog, Message, Prompt

PROMPTS = held_out_prompts(60)
answers = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", " ", "Paris.", ", or so", " Paris", "\n- apple", "</s>", "🙂"]),
)


def both(tokenizer: Tokenizer) -> tuple[RewardInput, RewardInput]:
    """The path that shares the policy's ids, and the one that renders for itself."""
    template = Llama2Template()
    return RewardInput(tokenizer, template), RewardInput(tokenizer, template, shares_policy_ids=False)


@settings(max_examples=200)
@given(prompt=st.sampled_from(PROMPTS), answer=answers)
def test_both_paths_give_the_same_ids(
    tokenizer: Tokenizer, template: Llama2Template, prompt: object, answer: str
) -> None:
    rendered = template.render(prompt.messages, tokenizer)  # type: ignore[attr-defined]
    shared, own = both(tokenizer)
    ids = shared.token_ids(rendered, answer)
    assert own.token_ids(rendered, answer) == ids
    assert ids[: len(rendered)] == list(rendered.token_ids)
    assert ids[-1] == tokenizer.eos_id
    assert tokenizer.decode_continuation(ids[len(rendered) :]) == (f" {answer}" if answer else "").replace("▁", " ")


@settings(max_examples=200)
@given(text=answers, answer=answers)
def test_both_paths_agree_on_raw_prompts(tokenizer: Tokenizer, text: str, answer: str) -> None:
    """An answer continues the raw text as it is: without a space of the template's."""
    prompt = tokenizer.raw_prompt(text)
    shared, own = both(tokenizer)
    assert shared.token_ids(prompt, answer) == own.token_ids(prompt, answer)
    assert shared.token_ids(prompt, answer) == [
        tokenizer.bos_id,
        *tokenizer.encode(text),
        *tokenizer.encode_continuation(answer),
        tokenizer.eos_id,
    ]


def test_ids_are_those_that_the_demo_models_were_trained_on(tokenizer: Tokenizer, template: Llama2Template) -> None:
    shared, _ = both(tokenizer)
    for pair in held_out_pairs(150, kind="helpfulness"):
        rendered = template.render(pair.messages, tokenizer)
        for answer in (pair.chosen, pair.rejected):
            assert shared.token_ids(rendered, answer) == list(encode(tokenizer, pair.messages, answer).ids)


@pytest.mark.parametrize("answer", ["", "Paris."])
def test_the_model_renders_for_itself_where_its_template_differs(tokenizer: Tokenizer, answer: str) -> None:
    class Upper(Llama2Template):
        def render(self, dialog: Dialog, tokenizer: Tokenizer, *, is_safety: bool = False) -> Prompt:
            loud = [Message(message.role, message.content.upper()) for message in self.validate(dialog)]
            return super().render(loud, tokenizer, is_safety=is_safety)

    quiet = Llama2Template().render([Message("user", "Hello")], tokenizer)
    loud = Llama2Template().render([Message("user", "HELLO")], tokenizer)
    own = RewardInput(tokenizer, Upper(), shares_policy_ids=False)
    assert own.token_ids(quiet, answer) == RewardInput(tokenizer, Upper()).token_ids(loud, answer)


def test_a_prompt_is_rendered_once_for_all_its_candidates(tokenizer: Tokenizer) -> None:
    rendered: list[Dialog] = []

    class Counting(Llama2Template):
        def render(self, dialog: Dialog, tokenizer: Tokenizer, *, is_safety: bool = False) -> Prompt:
            rendered.append(dialog)
            return super().render(dialog, tokenizer, is_safety=is_safety)

    own = RewardInput(tokenizer, Counting(), shares_policy_ids=False)
    prompts = [Llama2Template().render([Message("user", text)], tokenizer) for text in ("Hello", "Bye")]
    for answer in ("Paris.", "London.", ""):
        for prompt in prompts:
            own.token_ids(prompt, answer)
    assert rendered == [prompt.messages for prompt in prompts]


ROLES = st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=5)


@given(roles=ROLES, text=st.sampled_from(["Hello", "[INST] hi <<SYS>>", "<|im_end|>", " né "]), answer=answers)
@settings(max_examples=100)
def test_a_prompt_of_another_policy_is_rendered_by_the_models_own_tokenizer_and_template(
    tokenizer: Tokenizer, roles: list[str], text: str, answer: str
) -> None:
    """Whatever dialog the policy's template accepts, and whatever the texts hold."""
    policy = shipped("ChatML")
    prompt = policy.template.render([Message(role, text) for role in (*roles, "user")], policy.ours)
    ids = RewardInput(tokenizer, Llama2Template(), shares_policy_ids=False).token_ids(prompt, answer)
    assert ids[0] == tokenizer.bos_id
    assert ids[-1] == tokenizer.eos_id
    spelt = tokenizer.decode_continuation(ids)
    assert spelt.endswith(f" {answer}".replace("▁", " ") if answer else "[/INST]")
    assert spelt.count(text.strip().replace("[", "[ ", 1).replace("<<", "< <", 1) if "[" in text else text.strip()) > 0


def test_a_plain_dialog_of_another_policy_has_the_ids_of_this_models_own(tokenizer: Tokenizer) -> None:
    policy, own = shipped("ChatML"), RewardInput(tokenizer, Llama2Template(), shares_policy_ids=False)
    for prompt in PROMPTS[:20]:
        theirs = policy.template.render(prompt.messages, policy.ours)
        ours = Llama2Template().render(prompt.messages, tokenizer)
        assert own.token_ids(theirs, "Paris.") == RewardInput(tokenizer, Llama2Template()).token_ids(ours, "Paris.")
    raw = policy.ours.raw_prompt("The capital of France is")
    assert own.token_ids(raw, " Paris") == own.token_ids(tokenizer.raw_prompt("The capital of France is"), " Paris")
