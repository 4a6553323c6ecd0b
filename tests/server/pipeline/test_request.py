"""The checked request: the same rules for HTTP bodies and for lines of an offline run; its rendering."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedRewardModel, WatchedTokenizer
from tests.models.engines import tiny
from winnow.clients.schema import ChatRequest, TextRequest
from winnow.models.cards import Card
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.reward_text import CardInput
from winnow.models.errors import DialogError, PromptTooLong, RequestError, SamplingError
from winnow.models.safety_classifier import PatternClassifier, ProbeClassifier
from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.models.tokenizer import LONG_TEXT, Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.pipeline.best_of_n import tagged as with_tag
from winnow.server.pipeline.early_stopping import NEVER, EarlyRejection, EarlyStopping
from winnow.server.pipeline.rendering import PromptRenderer, ScorerLimit
from winnow.server.pipeline.request import Defaults, RawPrompt, RequestOptions, resolve
from winnow.server.pipeline.waves import Waves

DIALOG = (Message("user", "Hello!"),)
DEFAULTS = Defaults(
    candidates=16, least=16, max_candidates=64, temperature=1.0, top_p=0.9, max_tokens=100, combiner="llama2"
)
SHRINKING = replace(DEFAULTS, least=4)
CONTEXT, VOCABULARY = 128, 2048
Options = Callable[..., RequestOptions]
TOKEN_IDS = st.from_regex(r"[0-9]{1,4}", fullmatch=True)


def from_body(**options: Any) -> RequestOptions:
    """Return the options of an HTTP body, or of a batch line, that asks for `options`."""
    ours = (
        "candidates",
        "combiner",
        "is_safety",
        "merge_turns",
        "deadline_ms",
        "accept_reward",
        "early_rejection",
        "adaptive",
    )
    best_of_n = {name: options.pop(name) for name in ours if name in options}
    if least := options.pop("least", None):
        best_of_n["candidates"] = {"min": least, "max": best_of_n["candidates"]}
    if early := best_of_n.get("early_rejection"):
        best_of_n["early_rejection"] = {"at_tokens": list(early.at_tokens), "keep": early.keep}
    if waves := best_of_n.get("adaptive"):
        stop = {"reward": waves.reward} if waves.reward else {"gain": waves.gain}
        best_of_n["adaptive"] = {"start": waves.start, "step": waves.step, "stop": stop}
    if (alternatives := options.pop("alternatives", None)) is not None:
        options |= {"logprobs": True, "top_logprobs": alternatives}
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": "any", "messages": messages, "best_of_n": best_of_n or None, **options}
    return RequestOptions.of(ChatRequest.model_validate_json(json.dumps(body)))


@pytest.fixture(params=[RequestOptions, from_body], ids=["offline", "body"])
def options(request: pytest.FixtureRequest) -> Options:
    """Return the function that makes the options of a line, or those of a body."""
    made: Options = request.param
    return made


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "candidates": st.integers(1, 64),
            "n": st.integers(1, 64),
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0.01, 1),
            "top_k": st.integers(-1, 100),
            "min_p": st.floats(0, 1),
            "max_tokens": st.integers(1, 10**6),
            "min_tokens": st.integers(1, 10**6),
            "ignore_eos": st.just(True),
            "repetition_penalty": st.floats(0.1, 10).filter(lambda penalty: penalty != 1),
            "merge_turns": st.booleans(),
            "stop": st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4).map(tuple),
            "presence_penalty": st.floats(-2, 2),
            "frequency_penalty": st.floats(-2, 2),
            "logit_bias": st.dictionaries(TOKEN_IDS, st.floats(-100, 100), min_size=1),
            "seed": st.integers(0, 2**63 - 1),
            "alternatives": st.integers(0, 20),
            "combiner": st.sampled_from(["llama2", "safe_first"]),
            "is_safety": st.booleans(),
            "deadline_ms": st.floats(1, 1e6),
            "accept_reward": st.floats(0, 1),
            "early_rejection": st.just(EarlyRejection((4, 16), 0.25)),
        },
    )
    | st.fixed_dictionaries({"adaptive": st.sampled_from([False, Waves(2, 3, 0.9), Waves(1, 1, gain=0.01)])})
)
def test_a_body_has_the_options_that_it_asks_for(asked: dict[str, Any]) -> None:
    assert from_body(**asked) == RequestOptions(**asked)


def test_the_two_names_of_k_and_of_the_limit() -> None:
    assert from_body(best_of=5) == RequestOptions(candidates=5, candidates_field="best_of")
    assert from_body(candidates=5, least=2) == RequestOptions(candidates=5, least=2)
    assert from_body(max_completion_tokens=7) == RequestOptions(max_tokens=7, max_tokens_field="max_completion_tokens")
    assert from_body(max_completion_tokens=7, max_tokens=7) == RequestOptions(max_tokens=7)
    assert RequestOptions.of(TextRequest(model="any", prompt="x", logprobs=2)) == RequestOptions(alternatives=2)


def test_without_options_the_defaults_apply() -> None:
    request = resolve(DIALOG, RequestOptions(), DEFAULTS)
    assert (request.prompt, request.candidates, request.least, request.n) == (DIALOG, 16, 16, 1)
    assert (request.combiner, request.is_safety, request.early_stopping) == ("llama2", None, NEVER)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed) == (1.0, 0.9, 100, None)
    assert (sampling.stop, sampling.logit_bias, sampling.alternatives) == ((), {}, None)
    assert not request.has_options
    assert resolve(DIALOG, from_body(), DEFAULTS) == request


def test_a_line_has_options_unless_it_only_says_whether_it_is_a_safety_prompt() -> None:
    assert not resolve(DIALOG, RequestOptions(is_safety=True), DEFAULTS).has_options
    assert resolve(DIALOG, RequestOptions(seed=1), DEFAULTS).has_options


@pytest.mark.parametrize("candidates", [1, 64])
def test_k_is_the_callers_up_to_the_limit(options: Options, candidates: int) -> None:
    request = resolve(DIALOG, options(candidates=candidates), DEFAULTS)
    assert request.candidates == request.least == candidates


@pytest.mark.parametrize("candidates", [65, 10**9])
def test_k_above_the_limit_is_refused(options: Options, candidates: int) -> None:
    with pytest.raises(RequestError, match=rf"{candidates} candidates .* 64") as refused:
        resolve(DIALOG, options(candidates=candidates), DEFAULTS)
    assert (refused.value.param, refused.value.code) == ("best_of_n.candidates", "invalid_request")


def test_an_error_names_the_field_that_the_caller_used() -> None:
    for asked, param in (({"best_of": 65}, "best_of"), ({"candidates": 65}, "best_of_n.candidates")):
        with pytest.raises(RequestError) as refused:
            resolve(DIALOG, from_body(**asked), DEFAULTS)
        assert refused.value.param == param
    with pytest.raises(RequestError, match=r"raise best_of$"):
        resolve(DIALOG, from_body(best_of=2, n=3), DEFAULTS)


def test_n_answers_need_as_many_candidates(options: Options) -> None:
    assert resolve(DIALOG, options(n=3, candidates=3), DEFAULTS).n == 3
    assert resolve(DIALOG, options(n=16), DEFAULTS).candidates == 16
    with pytest.raises(RequestError, match="cannot be returned") as refused:
        resolve(DIALOG, options(n=4, candidates=3), DEFAULTS)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_request")


@pytest.mark.parametrize(("n", "candidates"), [(1, 16), (16, 16), (17, 17), (64, 64)])
def test_n_raises_k_where_the_caller_names_none(options: Options, n: int, candidates: int) -> None:
    request = resolve(DIALOG, options(n=n), DEFAULTS)
    assert (request.n, request.candidates, request.requested) == (n, candidates, candidates)
    assert resolve(DIALOG, options(n=n), SHRINKING).least >= n


def test_n_above_the_limit_is_refused(options: Options) -> None:
    with pytest.raises(RequestError, match=r"n \(65\) .* 64") as refused:
        resolve(DIALOG, options(n=65), DEFAULTS)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_request")


def test_min_tokens_is_within_max_tokens(options: Options) -> None:
    assert resolve(DIALOG, options(min_tokens=100), DEFAULTS).sampling.min_tokens == 100
    assert resolve(DIALOG, options(), DEFAULTS).sampling.min_tokens == 0
    for asked in ({"min_tokens": 101}, {"min_tokens": 8, "max_tokens": 7}):
        with pytest.raises(SamplingError, match="is above max_tokens") as refused:
            resolve(DIALOG, options(**asked), DEFAULTS)
        assert (refused.value.param, refused.value.code) == ("min_tokens", "invalid_sampling")


def test_sampling_has_vllms_options(options: Options) -> None:
    sampling = resolve(DIALOG, options(ignore_eos=True, repetition_penalty=1.3), DEFAULTS).sampling
    assert (sampling.ignore_eos, sampling.repetition_penalty) == (True, 1.3)
    sampling = resolve(DIALOG, options(), DEFAULTS).sampling
    assert (sampling.ignore_eos, sampling.repetition_penalty) == (False, 1.0)


@pytest.mark.parametrize(
    "neutral", [{"seed": -1}, {"min_tokens": 0}, {"ignore_eos": False}, {"repetition_penalty": 1.0}, {"top_k": None}]
)
def test_neutral_values_are_no_options(neutral: dict[str, Any]) -> None:
    assert from_body(**neutral) == RequestOptions()


def test_at_temperature_0_k_is_1_unless_the_caller_insists(options: Options) -> None:
    request = resolve(DIALOG, options(temperature=0), DEFAULTS)
    assert (request.candidates, request.n, request.sampling.temperature) == (1, 1, 0)
    assert (request.requested, request.is_reduced) == (16, True)
    request = resolve(DIALOG, options(temperature=0, candidates=1), DEFAULTS)
    assert (request.candidates, request.requested, request.is_reduced) == (1, 1, False)
    for asked in ({"candidates": 2}, {"n": 2}, {"n": 2, "candidates": 4}):
        with pytest.raises(SamplingError, match="raise temperature") as refused:
            resolve(DIALOG, options(temperature=0, **asked), DEFAULTS)
        assert (refused.value.param, refused.value.code) == ("temperature", "invalid_sampling")


def test_a_default_temperature_of_0_is_one_too(options: Options) -> None:
    greedy = replace(DEFAULTS, temperature=0.0)
    assert resolve(DIALOG, options(), greedy).candidates == 1
    assert resolve(DIALOG, options(temperature=0.5), greedy).candidates == 16


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        ({}, 4),
        ({"candidates": 2}, 2),
        ({"candidates": 8}, 4),
        ({"candidates": 8, "least": 6}, 6),
        ({"candidates": 8, "least": 8}, 8),
        ({"candidates": 8, "least": 2, "n": 5}, 5),
        ({"candidates": 12, "n": 5}, 5),
        ({"temperature": 0}, 1),
    ],
)
def test_k_may_shrink_to_the_callers_least_or_the_defaults_never_below_n(
    options: Options, asked: dict[str, Any], least: int
) -> None:
    assert resolve(DIALOG, options(**asked), SHRINKING).least == least


def test_without_a_default_range_only_the_callers_own_shrinks(options: Options) -> None:
    assert resolve(DIALOG, options(candidates=8), DEFAULTS).least == 8
    assert resolve(DIALOG, options(candidates=8, least=3), DEFAULTS).least == 3


@pytest.mark.parametrize("key", ["x", "", "-1", "1.0", " 1", "+1", "٣", "1_0", "9999999999"])
def test_a_key_of_logit_bias_is_a_token_id(options: Options, key: str) -> None:
    with pytest.raises(SamplingError) as refused:
        resolve(DIALOG, options(logit_bias={"5": 1.0, key: 1.0}), DEFAULTS)
    assert (refused.value.param, refused.value.code) == ("logit_bias", "invalid_sampling")
    assert repr(key[:20]) in str(refused.value)


def test_logit_bias_is_by_token_id(options: Options) -> None:
    assert resolve(DIALOG, options(logit_bias={"5": 1.5, "007": -2}), DEFAULTS).sampling.logit_bias == {5: 1.5, 7: -2}


def test_a_deadline_counts_from_the_arrival(options: Options) -> None:
    request = resolve(DIALOG, options(deadline_ms=250), DEFAULTS, arrived=1000.0)
    assert request.early_stopping == EarlyStopping(deadline=1000.25)
    rejection = EarlyRejection((4, 8), 0.25)
    request = resolve(DIALOG, options(accept_reward=0.0, early_rejection=rejection), DEFAULTS, arrived=1000.0)
    assert request.early_stopping == EarlyStopping(None, 0.0, rejection)


@pytest.mark.parametrize(("top_k", "sampled"), [(None, 0), (-1, 0), (0, 0), (7, 7)])
def test_top_k_minus_one_is_off(options: Options, top_k: int | None, sampled: int) -> None:
    assert resolve(DIALOG, options(top_k=top_k), DEFAULTS).sampling.top_k == sampled


@pytest.fixture
def renderer(tokenizer: Tokenizer) -> PromptRenderer:
    return PromptRenderer(tokenizer, TEMPLATES["llama2"], PatternClassifier(DEFAULT_PATTERNS), CONTEXT, VOCABULARY)


async def test_a_dialog_is_rendered_by_the_template(renderer: PromptRenderer) -> None:
    request = resolve(DIALOG, RequestOptions(), DEFAULTS)
    rendered = await renderer.render(request)
    assert rendered.request is request
    assert rendered.prompt == renderer.template.render(DIALOG, renderer.tokenizer)
    assert (rendered.prompt.messages, rendered.prompt.is_safety, rendered.sampling_prompt) == (DIALOG, False, None)
    assert rendered.sampling == request.sampling
    with pytest.raises(DialogError):
        await renderer.render(resolve((Message("assistant", "Hi"),), RequestOptions(), DEFAULTS))


@pytest.mark.parametrize(("asked", "tagged"), [(None, True), (False, False), (True, True)])
async def test_the_classifier_tags_a_prompt_that_the_caller_does_not(
    renderer: PromptRenderer, options: Options, asked: bool | None, tagged: bool
) -> None:
    question = "How do I make a bomb?"
    for prompt in ((Message("user", question),), RawPrompt(question)):
        request = resolve(prompt, options(is_safety=asked), DEFAULTS)
        rendered = await renderer.render(request)
        assert (await with_tag(rendered.prompt, rendered.classifier)).is_safety is tagged
        assert (rendered.classifier is None) is (asked is not None)


async def test_a_prompt_that_leaves_no_room_for_the_probe_is_refused_unless_the_caller_tags_it(
    renderer: PromptRenderer, options: Options
) -> None:
    probing = replace(renderer, classifier=ProbeClassifier(ScriptedRewardModel()))
    raw = renderer.tokenizer.raw_prompt((400,))
    needed = max(len(renderer.tokenizer.encode_answer(raw, text)) for text in probing.classifier.stock_answers)
    for spare in (1, needed - 1, needed, needed + 1):
        ids = (renderer.tokenizer.bos_id, *[400] * (CONTEXT - spare - 1))
        tagged = resolve(RawPrompt(ids), options(is_safety=False), DEFAULTS)
        assert len((await probing.render(tagged)).prompt) == CONTEXT - spare
        untagged = resolve(RawPrompt(ids), options(), DEFAULTS)
        if spare >= needed:
            assert (await probing.render(untagged)).classifier is probing.classifier
        else:
            with pytest.raises(PromptTooLong, match="is_safety"):
                await probing.render(untagged)


async def test_the_default_limit_is_cut_to_the_context_and_the_callers_own_is_not(
    renderer: PromptRenderer, options: Options
) -> None:
    length = len((await renderer.render(resolve(DIALOG, RequestOptions(), DEFAULTS))).prompt)
    room = CONTEXT - length
    plenty = replace(DEFAULTS, max_tokens=10**6)
    assert (await renderer.render(resolve(DIALOG, options(), plenty))).sampling.max_tokens == room
    assert (await renderer.render(resolve(DIALOG, options(max_tokens=room), DEFAULTS))).sampling.max_tokens == room
    with pytest.raises(PromptTooLong, match=rf"{length} .* {room + 1} .* {CONTEXT}") as refused:
        await renderer.render(resolve(DIALOG, options(max_tokens=room + 1), DEFAULTS))
    assert (refused.value.param, refused.value.code) == ("max_tokens", "context_length_exceeded")
    with pytest.raises(PromptTooLong) as refused:
        await renderer.render(resolve(DIALOG, from_body(max_completion_tokens=room + 1), DEFAULTS))
    assert refused.value.param == "max_completion_tokens"


@pytest.mark.parametrize("words", [CONTEXT, 100_000])
async def test_a_prompt_that_leaves_no_room_is_refused(renderer: PromptRenderer, words: int) -> None:
    text = "word " * words
    with pytest.raises(PromptTooLong) as refused:
        await renderer.render(resolve((Message("user", text),), RequestOptions(), DEFAULTS))
    assert refused.value.param == "messages"
    with pytest.raises(PromptTooLong) as refused:
        await renderer.render(resolve(RawPrompt(text), RequestOptions(), DEFAULTS))
    assert refused.value.param == "prompt"


async def test_the_vocabulary_bounds_logit_bias(renderer: PromptRenderer, options: Options) -> None:
    last = options(logit_bias={str(VOCABULARY - 1): 1})
    assert (await renderer.render(resolve(DIALOG, last, DEFAULTS))).sampling.logit_bias == {VOCABULARY - 1: 1}
    with pytest.raises(SamplingError, match=str(VOCABULARY - 1)) as refused:
        await renderer.render(resolve(DIALOG, options(logit_bias={str(VOCABULARY): 1}), DEFAULTS))
    assert refused.value.param == "logit_bias"
    assert f"key {VOCABULARY}" in str(refused.value)


async def test_a_raw_text_and_its_ids_are_the_same_prompt(renderer: PromptRenderer, options: Options) -> None:
    ids = (renderer.tokenizer.bos_id, *renderer.tokenizer.encode("Hello there"))
    text, same = [
        (await renderer.render(resolve(RawPrompt(content), options(), DEFAULTS))).prompt
        for content in ("Hello there", ids)
    ]
    assert text == same
    assert (text.token_ids, text.raw_text, text.is_raw, text.answer_prefix) == (ids, "Hello there", True, "")


@pytest.mark.parametrize("content", ["", (), (1, VOCABULARY), (1,) * CONTEXT])
async def test_raw_prompts_that_are_refused(renderer: PromptRenderer, content: str | tuple[int, ...]) -> None:
    with pytest.raises(RequestError) as refused:
        await renderer.render(resolve(RawPrompt(content), RequestOptions(), DEFAULTS))
    assert refused.value.param == "prompt"
    assert isinstance(refused.value, PromptTooLong) == (len(content) == CONTEXT)


async def test_the_longer_of_prompt_and_sampling_prompt_must_leave_room(renderer: PromptRenderer) -> None:
    longer = (Message("system", "Answer in one short and polite sentence."), *DIALOG)
    plenty = replace(DEFAULTS, max_tokens=10**6)
    for dialog, sampled in ((DIALOG, longer), (longer, DIALOG)):
        request = replace(resolve(dialog, RequestOptions(), plenty), sampling_dialog=sampled)
        rendered = await renderer.render(request)
        assert rendered.sampling_prompt
        assert (rendered.prompt.messages, rendered.sampling_prompt.messages) == (dialog, sampled)
        assert rendered.sampling.max_tokens == CONTEXT - max(len(rendered.prompt), len(rendered.sampling_prompt))
    same = replace(resolve(DIALOG, RequestOptions(), plenty), sampling_dialog=DIALOG)
    assert (await renderer.render(same)).sampling_prompt is None


async def test_a_long_text_is_tokenised_in_a_thread(tokenizer: Tokenizer, renderer: PromptRenderer) -> None:
    threads: list[threading.Thread] = []

    watched = WatchedTokenizer(tokenizer, lambda _: threads.append(threading.current_thread()))
    renderer = replace(renderer, tokenizer=watched, context=10**6)
    for length, is_own in ((LONG_TEXT, True), (LONG_TEXT + 1, False)):
        await renderer.render(resolve((Message("user", "x" * length),), RequestOptions(), DEFAULTS))
        assert (threads.pop() is threading.current_thread()) is is_own


async def test_the_context_must_hold_min_tokens(renderer: PromptRenderer, options: Options) -> None:
    length = len((await renderer.render(resolve(DIALOG, RequestOptions(), DEFAULTS))).prompt)
    plenty, room = replace(DEFAULTS, max_tokens=10**6), CONTEXT - length
    rendered = await renderer.render(resolve(DIALOG, options(min_tokens=room), plenty))
    assert (rendered.sampling.min_tokens, rendered.sampling.max_tokens) == (room, room)
    with pytest.raises(PromptTooLong, match=rf"{length} .* {room + 1} .* {CONTEXT}") as refused:
        await renderer.render(resolve(DIALOG, options(min_tokens=room + 1), plenty))
    assert refused.value.param == "min_tokens"


SMALL_CONTEXT = 60


def own_tokens(**card: object) -> ScorerLimit:
    """A reward model whose byte-level tokens are not the policy's, with a short context."""
    reader = CardInput(Card(name="other", **card), tiny.byte_level())  # type: ignore[arg-type]
    return ScorerLimit("safety", reader, SMALL_CONTEXT)


@pytest.mark.parametrize("words", [1, 4, 6, 7, 8, 9, 10, 12, 20])
async def test_a_prompt_that_a_reward_model_cannot_hold_in_its_own_tokens_is_refused_before_anything_is_sampled(
    renderer: PromptRenderer, words: int
) -> None:
    """All of its candidates were sampled, and none could be scored: a 500."""
    scorer = own_tokens()
    asked = resolve((Message("user", "naïve " * words),), RequestOptions(), DEFAULTS)
    fitting = replace(renderer, scorers=(scorer,))
    assert not isinstance(asked.prompt, RawPrompt)
    if len(scorer.reader.token_ids(Prompt((), tuple(asked.prompt)), "")) <= SMALL_CONTEXT:
        await fitting.render(asked)
        return
    with pytest.raises(PromptTooLong, match=f"for the safety model, whose context holds {SMALL_CONTEXT}") as refused:
        await fitting.render(asked)
    assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")


async def test_a_reward_model_that_may_forget_old_turns_refuses_only_the_last(renderer: PromptRenderer) -> None:
    forgetful = replace(renderer, scorers=(own_tokens(overflow="drop_oldest_turns"),))
    old = (Message("user", "old " * 80), Message("assistant", "Yes."))
    await forgetful.render(resolve((*old, Message("user", "new?")), RequestOptions(), DEFAULTS))
    with pytest.raises(PromptTooLong):
        await forgetful.render(resolve((*old, Message("user", "new " * 80)), RequestOptions(), DEFAULTS))


async def test_a_dialog_that_a_reward_models_template_refuses_is_the_callers_mistake(renderer: PromptRenderer) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    template = refusal + "{{ messages[-1].content }}"
    strict = replace(renderer, scorers=(own_tokens(template=template, system="keep"),))
    await strict.render(resolve(DIALOG, RequestOptions(), DEFAULTS))
    with pytest.raises(RequestError, match=r"safety model cannot read this: .*no system messages"):
        await strict.render(resolve((Message("system", "Hi"), *DIALOG), RequestOptions(), DEFAULTS))


async def test_given_answers_are_measured_in_a_reward_models_own_tokens(renderer: PromptRenderer) -> None:
    limited = replace(renderer, scorers=(own_tokens(),))
    prompt = await limited.render_dialog(DIALOG)
    await limited.require_scorable(prompt, "answers", ["short", ""])
    with pytest.raises(PromptTooLong, match="answers"):
        await limited.require_scorable(prompt, "answers", ["short", "long " * 80])


async def test_the_probes_answers_are_measured_in_a_reward_models_own_tokens(
    renderer: PromptRenderer, options: Options
) -> None:
    limit = own_tokens()
    probing = replace(renderer, classifier=ProbeClassifier(ScriptedRewardModel()), scorers=(limit,))
    asked = (Message("user", ""),)
    while len(limit.reader.token_ids(Prompt((), longer := (Message("user", asked[0].content + "!"),)), "")) <= 60:
        asked = longer
    await probing.render(resolve(asked, options(is_safety=False), DEFAULTS))
    with pytest.raises(PromptTooLong, match="for the safety model"):
        await probing.render(resolve(asked, options(), DEFAULTS))


WAVES = Waves(4, 4, 0.9)
ADAPTIVE = replace(DEFAULTS, adaptive=WAVES)


def test_waves_are_the_callers_or_else_the_default(options: Options) -> None:
    own = Waves(2, 3, 0.5)
    assert resolve(DIALOG, options(), DEFAULTS).waves is None
    assert resolve(DIALOG, options(), ADAPTIVE).waves == WAVES
    assert resolve(DIALOG, options(adaptive=own), ADAPTIVE).waves == own
    assert resolve(DIALOG, options(adaptive=False), ADAPTIVE).waves is None
    early = options(early_rejection=EarlyRejection((4, 16), 0.25))
    assert resolve(DIALOG, early, ADAPTIVE).waves is None, "the default does not apply to it"


@pytest.mark.parametrize(
    ("asked", "start"),
    [({}, 4), ({"n": 6}, 6), ({"candidates": 12, "least": 7}, 7), ({"candidates": 12, "least": 2}, 4)],
)
def test_the_first_wave_has_the_least_k_and_n(options: Options, asked: dict[str, Any], start: int) -> None:
    request = resolve(DIALOG, options(**asked), ADAPTIVE)
    assert request.waves == replace(WAVES, start=start)
    assert (request.at_once, request.least_at_once) == (start, start)


def test_a_first_wave_is_at_most_k(options: Options) -> None:
    assert resolve(DIALOG, options(candidates=3), ADAPTIVE).at_once == 3
    assert resolve(DIALOG, options(temperature=0.0), ADAPTIVE).at_once == 1
    request = resolve(DIALOG, options(candidates=8, least=2), DEFAULTS)
    assert (request.at_once, request.least_at_once) == (8, 2), "without waves all K start at once"


def test_a_gain_needs_a_table(options: Options) -> None:
    asked = options(adaptive=Waves(gain=0.002))
    with pytest.raises(RequestError, match="--gains FILE") as refused:
        resolve(DIALOG, asked, DEFAULTS)
    assert refused.value.param == "best_of_n.adaptive.stop.gain"
    assert resolve(DIALOG, asked, replace(DEFAULTS, knows_gains=True)).waves == Waves(gain=0.002)
